"""What fields a spec has, for readers and writers of study files: dimension, bounds, default, description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from manybody.core import catalog
from manybody.core.spec import NamedSpec
from manybody.core.study import Member
from manybody.core.units import Dimension

_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


@dataclass(frozen=True)
class Parameter:
    """One field of a spec. `default` is None where there is none and the field is `required`."""

    name: str
    kind: str
    dimension: Dimension | None
    required: bool
    default: Any
    bounds: Mapping[str, float]
    choices: tuple[str, ...]
    description: str
    examples: tuple[Any, ...] = ()

    @property
    def limits(self) -> str:
        """The bounds for a reader, such as ``> 0, <= 2``."""
        return ", ".join(f"{_BOUNDS[name]} {bound:g}" for name, bound in self.bounds.items())


def parameters(spec: type[BaseModel]) -> tuple[Parameter, ...]:
    """The fields of a spec in order; the `name` by which a catalog finds it is not among them."""
    hidden = "name" if issubclass(spec, NamedSpec) else ""
    return tuple(_parameter(name, field) for name, field in spec.model_fields.items() if name != hidden)


def _parameter(name: str, field: FieldInfo) -> Parameter:
    default = field.get_default(call_default_factory=True, validated_data={})
    return Parameter(
        name=name,
        kind=_kind(field.annotation),
        dimension=dimension_of(field.annotation, field.metadata),
        required=field.is_required(),
        default=None if default is PydanticUndefined else default,
        bounds={key: getattr(item, key) for item in field.metadata for key in _BOUNDS if hasattr(item, key)},
        choices=choices_of(field.annotation),
        description=field.description or "",
        examples=tuple(field.examples or ()),
    )


def dimension_of(annotation: Any, metadata: Any = ()) -> Dimension | None:
    """The physical dimension that an annotation carries, also inside ``X | None`` and ``tuple[X, ...]``."""
    for item in metadata:
        if isinstance(item, Dimension):
            return item
    if get_origin(annotation) is Annotated:
        return dimension_of(annotation.__origin__, annotation.__metadata__)
    for argument in get_args(annotation):
        found = dimension_of(argument)
        if found is not None:
            return found
    return None


def models_of(annotation: Any) -> tuple[type[BaseModel], ...]:
    """The specs that an annotation leaves to choose from, also inside ``X | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (annotation,)
    return tuple(model for argument in get_args(annotation) for model in models_of(argument))


def model_of(annotation: Any) -> type[BaseModel] | None:
    """The spec that an annotation asks for, the first where there are several."""
    found = models_of(annotation)
    return found[0] if found else None


def named_choices(annotation: Any, metadata: Any) -> Mapping[str, type[BaseModel]]:
    """The specs that a field takes by `name`: members of a group of the catalog, or those of a union; else none."""
    group = next((item.group for item in metadata if isinstance(item, Member)), None)
    if group is not None:
        return {name: catalog.load_spec(group, name) for name in catalog.entries(group)}
    choices = [model for model in models_of(annotation) if issubclass(model, NamedSpec)]
    return {str(model.model_fields["name"].default): model for model in choices}


def choices_of(annotation: Any) -> tuple[str, ...]:
    """The closed choices that an annotation leaves, none where it is open."""
    if get_origin(annotation) is Literal:
        return tuple(str(choice) for choice in get_args(annotation))
    return tuple(choice for argument in get_args(annotation) for choice in choices_of(argument))


def admits(annotation: Any, kind: type) -> bool:
    """Whether an annotation admits values of a type."""
    origin = get_origin(annotation)
    return annotation in (kind, Any) or origin is kind or any(admits(argument, kind) for argument in get_args(annotation))


def _kind(annotation: Any) -> str:
    words = {float: "number", int: "whole number", bool: "true or false", str: "text"}
    if isinstance(annotation, type) and annotation in words:
        return words[annotation]
    if choices_of(annotation):
        return "choice"
    if get_origin(annotation) in (tuple, list):
        return f"list of {_kind(get_args(annotation)[0])}"
    if model_of(annotation) is not None:
        return "mapping"
    inner = [_kind(argument) for argument in get_args(annotation) if argument not in (type(None), Ellipsis)]
    return " or ".join(dict.fromkeys(inner)) or str(annotation)
