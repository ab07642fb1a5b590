"""A pair potential learned by institutions that each hold configurations of a liquid: typed, torch-free."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, model_validator

from manybody.core import catalog
from manybody.core.learning import LearningProblem, Party, Sources
from manybody.core.protocols import MethodSpec, SystemSpec
from manybody.core.random import Key
from manybody.core.spec import NamedSpec, Spec, refuse
from manybody.core.task import Task
from manybody.core.units import Length, NumberDensity, Temperature, Time

PUBLIC = "public"  # the name under which everybody's data are made


class RadialBasis(NamedSpec):
    """u(r) = sum_k c_k phi_k(r): cubic B-splines, zero at the cutoff, their knots even in 1/r. Linear in c.

    Parameters are theta = W^-1 c, W whitening the loss on public data: gradient steps then converge at the same rate in
    all directions, as far as a party's data are like the public ones.
    """

    summary: ClassVar[str] = "cubic splines of the distance, linear in their coefficients; double precision"

    name: Literal["radial-basis"] = "radial-basis"
    functions: int = Field(12, ge=6, le=200, description="basis functions")
    shortest: Length = Field(0.88, gt=0, description="below it the potential goes on as a straight line")
    damping: float = Field(1e-4, gt=0, lt=1, description="added to the public curvature before whitening, of its mean")


class PairNetwork(NamedSpec):
    """u(r) = (1 - r / r_c)^2 N(x), x going as 1/r: a small fully connected network with tanh units."""

    summary: ClassVar[str] = "a small neural network of the distance; double precision"

    name: Literal["pair-network"] = "pair-network"
    hidden: int = Field(16, ge=1, le=1024, description="units of each of two hidden layers")
    shortest: Length = Field(0.88, gt=0, description="distance at which the network's input is 1")


Model = Annotated[RadialBasis | PairNetwork, Field(discriminator="name")]


class State(Spec):
    """A state point of the liquid."""

    temperature: Temperature = Field(gt=0, description="temperature")
    density: NumberDensity = Field(gt=0, le=2.0, description="particles per volume")


class Institution(Spec):
    """One who holds configurations: of a state point, made by tasks of the study, or `held` on its own node only."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$", description="short name, lower case with hyphens")
    temperature: Temperature | None = Field(None, gt=0, description="temperature of its liquid")
    density: NumberDensity | None = Field(None, gt=0, le=2.0, description="density of its liquid")
    configurations: int | None = Field(None, ge=2, description="how many it has, where not as many as all")
    held: str = Field("", pattern=r"^([A-Za-z0-9][A-Za-z0-9_-]{0,63})?$", description="data in its node's own folder, by name")
    capacity: float | None = Field(None, gt=0, description="rate of its node, as `manybody nodes` shows it")

    @model_validator(mode="after")
    def _has_data(self) -> Institution:
        made = self.temperature is not None and self.density is not None
        if made == bool(self.held):
            came = f"both, for {self.name}" if self.held else f"neither, for {self.name}"
            refuse("held", "either `temperature` and `density`, or `held`", came, "Say where its data come from, once.")
        return self


class FederatedLiquid(LearningProblem):
    """Institutions with configurations of the Lennard-Jones liquid, each at a state of its own, learn one potential.

    What they learn from are energies and forces. The last `faulty` institutions multiply their updates by `fault`.
    """

    summary: ClassVar[str] = "institutions that learn one pair potential from configurations of a liquid that each has"
    symmetries: ClassVar[tuple[str, ...]] = ("permutation of institutions",)
    learner: ClassVar[str] = "manybody.learn.potentials.learner:learner"

    name: Literal["federated-liquid"] = "federated-liquid"
    institutions: tuple[Institution, ...] = Field(
        min_length=2,
        max_length=1000,
        description="who takes part",
        examples=[
            [
                {"name": "cold", "temperature": 0.9, "density": 0.8},
                {"name": "warm", "temperature": 1.3, "density": 0.7},
                {"name": "hot", "temperature": 2.0, "density": 0.6},
            ]
        ],
    )
    public: State = Field(
        State(temperature=2.0, density=0.7), description="state of configurations that all may see, to agree and to test on"
    )
    model: Model = Field(RadialBasis(), description="what is learned: `radial-basis` or `pair-network`")
    atoms: int = Field(128, ge=32, le=100_000, description="particles of a configuration")
    cutoff: Length = Field(2.5, gt=1.0, description="pairs further apart do not interact")
    configurations: int = Field(20, ge=4, le=100_000, description="configurations that each has")
    spacing: Time = Field(0.4, gt=0, description="simulated time between configurations")
    equilibration: Time = Field(10.0, gt=0, description="simulated time before the first")
    force_weight: float = Field(1.0, ge=0, description="weight of squared forces beside that of squared energies an atom")
    faulty: int = Field(0, ge=0, description="institutions, the last ones, whose updates are multiplied by `fault`")
    fault: float = Field(-10.0, description="what faulty institutions multiply their updates by")

    @model_validator(mode="after")
    def _distinct_and_possible(self) -> FederatedLiquid:
        names = [institution.name for institution in self.institutions]
        if len({*names, PUBLIC}) != len(names) + 1:
            refuse("institutions", f"names that differ, none of them `{PUBLIC}`", ", ".join(names), "Rename one.")
        if self.faulty > len(names):
            refuse("faulty", f"at most the {len(names)} institutions", f"{self.faulty}", "Lower it.")
        if self.model.shortest >= self.cutoff:
            refuse("model", f"a `shortest` below the cutoff {self.cutoff:g}", f"{self.model.shortest:g}", "Lower it.")
        for name, temperature, density, _ in self._states():
            self._possible(name, temperature, density)
        return self

    @property
    def parties(self) -> tuple[Party, ...]:
        """The institutions."""
        honest = len(self.institutions) - self.faulty
        return tuple(
            Party(name=each.name, held=each.held, capacity=each.capacity, multiplier=1.0 if at < honest else self.fault)
            for at, each in enumerate(self.institutions)
        )

    @property
    def learned(self) -> dict[str, Any]:
        """Model, cutoff and loss."""
        return {"cutoff": self.cutoff, "force_weight": self.force_weight, "model": self.model.document()}

    @property
    def samples(self) -> int:
        """Pairs within the cutoff in all configurations of a party, about."""
        return round(self.configurations * self.atoms * 2.1 * self.cutoff**3 * self.public.density)

    def sources(self, seed: int, repeat: int) -> Sources:
        """A run of molecular dynamics for each state: its configurations, evenly spaced in time."""
        runs = {
            name: self._run(name, temperature, density, frames, seed, repeat)
            for name, temperature, density, frames in self._states()
        }
        tasks = tuple(task for run in runs.values() for task in run)
        last = {name: run[-1] for name, run in runs.items()}
        return Sources(tasks, {name: task for name, task in last.items() if name != PUBLIC}, last[PUBLIC])

    def _states(self) -> list[tuple[str, float, float, int]]:
        """Name, temperature, density and configurations of every run that is needed."""
        made = [
            (each.name, each.temperature, each.density, each.configurations or self.configurations)
            for each in self.institutions
            if each.temperature is not None and each.density is not None
        ]
        return [*made, (PUBLIC, self.public.temperature, self.public.density, self.configurations)]

    def _liquid(self, temperature: float, density: float) -> SystemSpec:
        kind = catalog.load_spec("systems", "lennard-jones-liquid")
        document = {"temperature": temperature, "density": density, "atoms": self.atoms, "cutoff": self.cutoff}
        made = kind.model_validate(document)
        assert isinstance(made, SystemSpec)
        return made

    def _dynamics(self, frames: int) -> MethodSpec:
        time = {"duration": frames * self.spacing, "segment": frames * self.spacing, "frame_every": self.spacing}
        kind = catalog.load_spec("methods", "molecular-dynamics")
        made = kind.model_validate(time | {"sample_every": self.spacing, "equilibration": self.equilibration})
        assert isinstance(made, MethodSpec)
        return made

    def _run(self, name: str, temperature: float, density: float, frames: int, seed: int, repeat: int) -> tuple[Task, ...]:
        # A seed of its own: two institutions at one state must not have the same configurations.
        own = Key.from_seed(seed, "institution", name).value % 2**53
        return self._dynamics(frames).plan(self._liquid(temperature, density), own, repeat)[0]

    def _possible(self, name: str, temperature: float, density: float) -> None:
        """Refuse what the liquid or its dynamics refuse, with their words."""
        try:
            self._liquid(temperature, density)
            self._dynamics(self.configurations)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            context = first.get("ctx", {})
            remedy = str(context.get("remedy", "Change the state, `atoms`, `cutoff` or `spacing`."))
            refuse("institutions", f"for {name}: {context.get('expected', first['msg'])}", context.get("came", ""), remedy)
