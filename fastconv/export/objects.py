"""Machine code of a kernel as an object file: what Numba has made of it, behind a plain C function.

Numba compiles a kernel to optimised LLVM code for its target, and keeps that with the machine code, on disk too. Here the same
code is emitted once more, for a place that is not known before (`reloc="pic"`), with one function more that a linker can find:

    void symbol(arguments...)       calls the kernel as Numba calls it, with room for a result and an exception

Everything else becomes internal, and what nobody calls any more is deleted: with it go the wrappers that Numba makes for
Python. Kernels allocate nothing and raise nothing, so that no symbol is left but libm's and memset; tests look at the library.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm

WRAPPER = """
target datalayout = "{layout}"
target triple = "{triple}"
declare i32 @{mangled}({declared})
define hidden void @{symbol}({given}) {{
  %result = alloca ptr
  %exception = alloca ptr
  call i32 @{mangled}({passed})
  ret void
}}
"""


def object_code(kernel: Any, argument_types: tuple[Any, ...], symbol: str) -> bytes:
    """An object file in which `symbol` is a kernel, compiled for these types as `compiled.address` would have it."""
    kernel.compile(argument_types)
    result = kernel.overloads[argument_types]
    if result.library.has_dynamic_globals:
        raise ValueError(f"{symbol}: addresses of this process are in its code")
    module = result.library._get_module_for_linking().clone()
    module.link_in(_wrapper(module, result.fndesc.mangled_name, symbol))
    for thing in (*module.functions, *module.global_variables):
        if not thing.is_declaration and thing.name != symbol:
            thing.linkage = "internal"
    machine = _target_machine(result.library.codegen)
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=0)))
    return bytes(machine.emit_object(module))


def _wrapper(module: Any, mangled: str, symbol: str) -> Any:
    kinds = [str(argument.type) for argument in module.get_function(mangled).arguments]
    given = [f"{kind} %a{i}" for i, kind in enumerate(kinds[2:])]
    text = WRAPPER.format(
        layout=module.data_layout, triple=module.triple, mangled=mangled, symbol=symbol, declared=", ".join(kinds),
        given=", ".join(given), passed=", ".join(["ptr %result", "ptr %exception", *given]),
    )  # fmt: skip
    return llvm.parse_assembly(text)


def _target_machine(codegen: Any) -> Any:
    triple, cpu, features = codegen.magic_tuple()
    target = llvm.Target.from_triple(triple)
    return target.create_target_machine(cpu=cpu, features=features, opt=3, reloc="pic", codemodel="default")
