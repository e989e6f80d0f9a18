"""How Numba is told of values of our own: what LLVM holds for them, their attributes, methods and operators.

A rule gives the types and the instructions at once:

    @method(TileType, "rank1")
    def rank1(tile, a, b):
        return tile(a, b), lambda builder, tile, a, b: ...      the signature, and what makes the result

Numba's `overload` would compile a function for every attribute and method of every type of value, 35 ms each, and a tiled
kernel has a hundred of them; a rule is only asked, and its instructions go straight into the kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types
from numba.core.errors import TypingError
from numba.core.imputils import lower_builtin, lower_getattr_generic
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, infer_getattr, infer_global
from numba.extending import models, register_model

Rule = Callable[..., tuple[Any, Callable[..., Any]] | None]

_attributes: dict[Any, dict[str, Rule]] = {}
_methods: dict[Any, dict[str, Any]] = {}


def held_as(numba_type: Any, llvm_type: Callable[[Any], Any]) -> None:
    """Values of a type are one LLVM value each; `llvm_type` says of which type."""

    @register_model(numba_type)
    class Model(models.PrimitiveModel):  # type: ignore[misc]
        def __init__(self, manager: Any, fe_type: Any) -> None:
            super().__init__(manager, fe_type, llvm_type(fe_type))

    attributes: dict[str, Rule] = {}
    methods: dict[str, Any] = {}
    _attributes[numba_type], _methods[numba_type] = attributes, methods

    @infer_getattr
    class Attributes(AttributeTemplate):  # type: ignore[misc]
        key = numba_type

        def generic_resolve(self, value: Any, name: str) -> Any:  # type: ignore[override]
            if name in methods:
                return types.BoundFunction(methods[name], value)
            found = attributes[name](value) if name in attributes else None
            return None if found is None else found[0]

    @lower_getattr_generic(numba_type)
    def get(context: Any, builder: Any, fe_type: Any, value: Any, name: str) -> Any:
        found = attributes[name](fe_type)
        assert found is not None
        return found[1](builder, value)


def attribute(owner: Any, name: str, rule: Rule) -> None:
    """Values of type `owner` have an attribute; the rule gives its type and what makes it of the value."""
    _attributes[owner][name] = rule


def method(owner: Any, name: str) -> Callable[[Rule], Rule]:
    """Values of type `owner` have a method."""
    full_name = f"{owner.__name__}.{name}"

    def register(rule: Rule) -> Rule:
        class Template(AbstractTemplate):  # type: ignore[misc]
            key = full_name
            this: Any

            def generic(self, args: Any, kws: Any) -> Any:
                found = _asked(rule, full_name, self.this, *args)
                return None if found is None else found[0].replace(recvr=self.this)

        @lower_builtin(full_name, owner, types.VarArg(types.Any))
        def lower(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return _made(rule, context, builder, signature, values)

        _methods[owner][name] = Template
        return rule

    return register


def operation(function: Any, *kinds: Any) -> Callable[[Rule], Rule]:
    """The operator takes values of these types."""

    def register(rule: Rule) -> Rule:
        @infer_global(function)
        class Template(AbstractTemplate):  # type: ignore[misc]
            key = function

            def generic(self, args: Any, kws: Any) -> Any:
                fit = len(args) == len(kinds) and all(map(isinstance, args, kinds))
                found = rule(*args) if fit else None
                return None if found is None else found[0]

        @lower_builtin(function, *kinds)
        def lower(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return _made(rule, context, builder, signature, values)

        return rule

    return register


def _asked(rule: Rule, name: str, *kinds: Any) -> Any:
    try:
        return rule(*kinds)
    except TypeError:
        raise TypingError(f"{name}: got {', '.join(map(str, kinds[1:])) or 'nothing'}") from None


def _made(rule: Rule, context: Any, builder: Any, signature: Any, values: Any) -> Any:
    """What the rule makes of the values; of nothing, Numba's None."""
    found = rule(*signature.args)
    assert found is not None
    made = found[1](builder, *values)
    return context.get_dummy_value() if signature.return_type == types.void else made
