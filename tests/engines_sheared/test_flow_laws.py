"""Flow laws and the checks of flow, on fluids that obey a law by construction, and on fluids that break what is claimed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from manybody.core.certificate import Verdict
from manybody.core.protocols import Context
from manybody.core.study import Study
from manybody.core.task import Output, Task
from manybody.engines.sheared.observables import correlation_integral, shear_components
from manybody.engines.sheared.rheology import evidence_ratio, fit
from manybody.store.objects import ObjectStore
from manybody.store.rows import ResultRow
from manybody.study.certify import findings
from manybody.study.expand import expand
from manybody.study.file import load_study
from manybody.study.measure import Measured

GALLERY = Path(__file__).parents[2] / "studies"
RATES = np.array([1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1])
Law = Callable[[float, float], float]


def test_fits_find_the_law_that_made_the_data():
    stresses, errors = 0.5 + 2.0 * RATES**0.45, np.full(6, 0.002)
    rich, bingham, newton = (fit(law, RATES, stresses, errors) for law in ("herschel-bulkley", "bingham", "newton"))
    assert (rich.yield_stress, rich.factor, rich.exponent) == pytest.approx((0.5, 2.0, 0.45), abs=2e-3)
    assert rich.chi_squared < 0.01
    assert max(evidence_ratio(bingham, rich), evidence_ratio(newton, rich)) < 1e-6
    np.testing.assert_allclose(rich.stress(RATES), stresses, atol=1e-3)
    straight = fit("bingham", RATES, 0.5 + 2.0 * RATES, errors)
    assert (straight.yield_stress, straight.factor) == pytest.approx((0.5, 2.0), rel=1e-10)
    assert evidence_ratio(straight, fit("herschel-bulkley", RATES, 0.5 + 2.0 * RATES, errors)) > 1  # simpler is better


def test_yield_error_is_the_scatter_of_fits():
    """The standard error from the curvature of chi^2 against fits of 80 noisy curves, which is known to 1/sqrt(160) = 8 %."""
    generator, errors = np.random.default_rng(8), np.full(6, 0.01)
    fits = [
        fit("herschel-bulkley", RATES, 0.5 + 2.0 * RATES**0.45 + errors * generator.standard_normal(6), errors) for _ in range(80)
    ]
    scatter = float(np.std([found.yield_stress for found in fits]))
    assert scatter == pytest.approx(float(np.median([found.yield_error for found in fits])), rel=0.3)


def test_a_fluid_without_yield_stress_has_none():
    found = fit("herschel-bulkley", RATES, 2.0 * RATES**0.6, 0.01 * RATES**0.6)
    assert found.yield_stress < 3 * found.yield_error
    assert found.exponent == pytest.approx(0.6, abs=0.01)


def test_green_kubo_integral_of_an_exponential():
    """s with correlation exp(-k/20): the trapezoid up to 200 lags is 0.5 + sum q^k = 0.5 (1 + q)/(1 - q), but for exp(-10)."""
    q, count = math.exp(-1 / 20), 100_000
    noise = np.random.default_rng(5).standard_normal((count, 5)) * math.sqrt(1 - q * q)
    series = np.empty_like(noise)
    series[0] = noise[0] / math.sqrt(1 - q * q)
    for k in range(1, count):
        series[k] = q * series[k - 1] + noise[k]
    values = correlation_integral(series, 200)
    blocks = values[: len(values) // 100 * 100].reshape(100, -1).mean(axis=1)
    error = float(blocks.std(ddof=1)) / 10
    exact = 0.5 * (1 + q) / (1 - q)
    assert values.mean() == pytest.approx(exact, abs=4 * error)
    assert error < 0.07 * exact  # sqrt(4 lags / samples / components) = 0.04
    direct = [series[0] @ (0.5 * series[0] + series[1:5].sum(axis=0) + 0.5 * series[5]) / 5]
    assert correlation_integral(series[:10], 5)[0] == pytest.approx(direct[0], rel=1e-12)


def test_stress_components_have_one_variance_in_a_liquid():
    """Of an isotropic random tensor: variances of off-diagonal elements G, of differences of diagonal ones 4 G."""
    generator = np.random.default_rng(6)
    common, deviators = generator.standard_normal(20_000), generator.standard_normal((20_000, 3))
    diagonal = common[:, None] + math.sqrt(2) * (deviators - deviators.mean(axis=1, keepdims=True))
    tensor = np.concatenate([diagonal, generator.standard_normal((20_000, 3))], axis=1)
    found = shear_components(tensor)
    np.testing.assert_allclose(found.var(axis=0), 1.0, atol=0.05)  # 5 standard errors of a variance
    np.testing.assert_allclose(np.corrcoef(found.T), np.eye(5), atol=0.04)


@pytest.fixture
def evidence(tmp_path: Path) -> Callable[[Study, Law, float], Measured]:
    """The evidence of a study whose fluids flow with the stress law(temperature, rate), give `heat` times the work away."""

    def make(study: Study, law: Law, heat: float = 1.0) -> Measured:
        store, plan = ObjectStore(tmp_path / "objects"), expand(study)

        def flow(task: Task, inputs: Mapping[str, Output], context: Context | None) -> Output:
            rate, count = task.parameters["shear_rate"], 400
            generator = task.key.generator()
            tensor = 0.02 * generator.standard_normal((count, 6))
            tensor[:, 3] -= law(task.system["temperature"], rate)
            time = 0.05 * np.arange(1, count + 1)
            volume = task.system["atoms"] / task.system["density"]
            steady = law(task.system["temperature"], rate) * rate * volume * time
            zero = np.zeros(count)
            arrays = {"time": time, "pressure_tensor": tensor, "heat": -heat * steady, "balance": zero, "momentum": zero}
            return Output(arrays | {"kinetic_temperature": zero + 1, "potential_energy": zero})

        rows = {}
        for task in plan.tasks:
            stored = store.put(flow(task, {}, None))
            rows[task.digest] = ResultRow(task.digest, stored.digest, stored.nbytes, 1.0, "worker", "attempt", 0.0, {})
        return Measured(plan, rows, store)

    return make


@pytest.fixture(scope="module")
def study() -> Study:
    """The study of the gallery, with the checks of flow alone and one segment a run."""
    changes = ["method.duration=1000", "method.segment=1000", "method.strain=0", "method.settling_strain=0"]
    return load_study(GALLERY / "kob-andersen-shear", [*changes, "checks=[conservation, dissipation, flow-law]"])


def kob_andersen(temperature: float, rate: float) -> float:
    """A yield stress fluid in the glass, a shear-thinning liquid above."""
    return 0.5 + 2.0 * rate**0.5 if temperature < 0.435 else 8.0 * rate / (1 + rate)


def verdicts(measured: Measured) -> dict[str, Verdict]:
    return {finding.name.split(" at temp")[0]: finding.verdict for finding in findings(measured.plan, measured).checks}


def test_a_yield_stress_fluid_is_recognised(study, evidence):
    found = verdicts(evidence(study, kob_andersen))
    for name in ("Herschel-Bulkley law", "against Newton and Bingham", "yield stress", "stress by two routes"):
        assert found[name] is Verdict.HOLDS, name
    # Its stresses at rest are white noise: no viscosity there, so that the plateau and the thinning cannot hold.
    assert found["Newtonian plateau"] is Verdict.FAILS
    assert found["shear thinning"] is Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("law", "broken"),
    [
        (lambda temperature, rate: 8.0 * rate, "against Newton and Bingham"),
        (lambda temperature, rate: 0.5 + 2.0 * rate, "against Newton and Bingham"),
        (lambda temperature, rate: 2.0 * rate**0.5, "yield stress"),
        (lambda temperature, rate: 0.5 + 0.2 * math.sin(3 * math.log(rate + 1e-9)), "Herschel-Bulkley law"),
    ],
    ids=["newton", "bingham", "power law", "no law"],
)
def test_another_fluid_is_not(study, evidence, law, broken):
    assert verdicts(evidence(study, law))[broken] is not Verdict.HOLDS


def test_heat_that_is_not_the_work_is_noticed(study, evidence):
    assert verdicts(evidence(study, kob_andersen, 1.05))["stress by two routes"] is Verdict.FAILS


def test_too_few_rates_leave_it_undecided(evidence):
    points = "sweep=[{system.temperature: 0.2, method.shear_rate: 0.1}, {system.temperature: 1.0, method.shear_rate: 0.1}]"
    times = ["method.duration=40", "method.segment=20", "method.strain=0", "method.settling_strain=0"]
    few = load_study(GALLERY / "kob-andersen-shear", [points, *times, "checks=[flow-law]"])
    found = verdicts(evidence(few, kob_andersen))
    assert found == {"Herschel-Bulkley law": Verdict.UNDECIDED, "Newtonian plateau": Verdict.UNDECIDED}
