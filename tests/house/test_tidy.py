"""The house rules hold for every file, and the checks find what they look for."""

import re
import tomllib

import pytest
import tidy

import engine

PYTHON = list(tidy.files(".py"))
CYTHON = list(tidy.files(".pyx", ".pxd"))
CODE = list(tidy.files(*tidy.CODE))
DOCS = list(tidy.files(".md"))
LUA = list(tidy.files(".lua"))
ENGINE = [path for path in PYTHON if tidy.name_of(path).startswith("engine/")]


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=tidy.name_of)


@each(CODE + LUA)
def test_lines_are_short_and_end_cleanly(path):
    text = path.read_text("utf-8")
    assert not tidy.long_lines(text) + tidy.untidy_ends(text)


@each(CODE + list(tidy.files(".toml")) + DOCS + LUA)
def test_no_text_promises_what_it_does_not_do(path):
    assert not tidy.banned_words(path.read_text("utf-8"))


@each(PYTHON)
def test_functions_fit_on_a_screen(path):
    assert not tidy.long_functions(path.read_text("utf-8"))


@each(CYTHON)
def test_cython_functions_fit_on_a_screen(path):
    assert not tidy.long_cython_functions(path.read_text("utf-8"))


@each(CYTHON)
def test_c_functions_say_how_errors_leave_them(path):
    assert not tidy.silent_cdefs(path.read_text("utf-8"))


@each(ENGINE)
def test_clock_environment_and_output_stay_in_their_files(path):
    assert not tidy.strayed_calls(tidy.name_of(path), path.read_text("utf-8"))


@each(ENGINE)
def test_the_daemon_neither_asserts_nor_swallows_everything(path):
    text = path.read_text("utf-8")
    assert not tidy.asserts(text) + tidy.wide_excepts(text)


@each(ENGINE)
def test_imports_go_down_the_path_of_an_order(path):
    assert not tidy.upward_imports(tidy.name_of(path), path.read_text("utf-8"))


@each([path for path in CODE if tidy.name_of(path).startswith("cython_core/")])
def test_the_core_imports_nothing_of_the_engine_and_does_no_input_or_output(path):
    assert not tidy.foreign_core_imports(path.read_text("utf-8"))


@each([path for path in CYTHON if path.suffix == ".pyx"
       and tidy.name_of(path).startswith(("engine/", "cython_core/"))])
def test_every_compiled_module_has_its_types_beside_it(path):
    assert path.with_suffix(".pyi").exists()


@each(DOCS)
def test_documents_name_files_that_exist(path):
    assert not tidy.missing_files(path.read_text("utf-8"))


def test_the_setup_script_stays_small():
    assert len((tidy.ROOT / "setup.py").read_text().splitlines()) <= 30


def test_the_changelog_knows_the_version():
    assert f"## {engine.__version__}" in (tidy.ROOT / "CHANGELOG.md").read_text()


def test_every_dependency_has_its_reason_in_the_architecture():
    project = tomllib.loads((tidy.ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    text = (tidy.ROOT / "ARCHITECTURE.md").read_text()
    names = {re.split(r"[<>=\[ ]", line)[0] for line in wanted}
    assert not {name for name in names if f"| {name} " not in text}


def test_the_checks_find_what_they_look_for():
    assert tidy.long_lines("x" * 101)
    assert tidy.untidy_ends("a \nb\n") and tidy.untidy_ends("a")
    assert tidy.banned_words("# " + "TO" + "DO later")
    body = "".join(f"    x = {number}\n" for number in range(70))
    assert tidy.long_functions("def f():\n" + body)
    assert tidy.long_cython_functions("cdef int f(\n        int x) except -1:\n" + body)
    assert not tidy.long_cython_functions("cdef int f() except -1:\n" + body[:-8] + "\n\nx = 1\n")
    assert tidy.strayed_calls("engine/app.py", "x = time.time()")
    assert tidy.strayed_calls("engine/app.py", "print(1)")
    assert not tidy.strayed_calls("engine/app.py", "# print(1)\nself.print(1)")
    assert tidy.asserts("assert 1") and tidy.wide_excepts("try:\n  x\nexcept:\n  pass")


def test_the_import_check_knows_the_layers():
    bad = {"engine/config.py": "engine.app", "engine/trading/stage.py": "engine.intake",
           "engine/clients/tcp.py": "engine.reports", "engine/app.py": "engine.cli"}
    for name, module in bad.items():
        assert tidy.upward_imports(name, f"from {module} import x"), name
    good = {"engine/intake/replay.py": "engine.journal.reader", "engine/app.py": "engine.intake",
            "engine/cli/book.py": "engine.journal.recovery", "engine/lifecycle.py": "engine.app"}
    for name, module in good.items():
        assert not tidy.upward_imports(name, f"from {module} import x"), name
    assert tidy.foreign_core_imports("import time\n")


def test_the_check_of_c_functions_reads_headers():
    assert tidy.silent_cdefs("cdef int f(int x):\n")
    assert tidy.silent_cdefs("cdef inline uint64_t *f(\n    int x) nogil:\n")
    assert tidy.silent_cdefs("    cdef void f(self)\n")
    for good in ("cdef int f(int x) except -1:", "cdef inline bint f() noexcept nogil:",
                 "cdef dict f(const Event *e):", "cdef object x = f(1)", "cdef class A(B):",
                 "cdef Node f(int x):", "cdef int x[4]"):
        assert not tidy.silent_cdefs(good + "\n"), good


def test_files_of_tests_have_names_of_their_own():
    names = [path.name for path in PYTHON if path.name.startswith("test_")]
    assert sorted(names) == sorted(set(names))
