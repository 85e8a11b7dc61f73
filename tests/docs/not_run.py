"""The commands of the documentation that no test runs as they stand, and why.

They are still read: a line of `matchd` by its own parser, a target of `make` in the Makefile, a
file in the repository. An entry that no page needs any more fails a test.
"""

# The beginning of a command, and the reason.
NOT_RUN = {
    "make build": "compiles for minutes; whoever runs these tests did it before",
    "make test": "runs these tests",
    "make check": "part of .ci/run",
    "make debug": "compiles for minutes",
    "make bench": "measures for half an hour; tests/bench/test_benches_run.py runs its rows "
                  "(`make bench-http`: tests/bench/test_bench_http.py)",
    "make soak": "takes minutes; tests/bench/test_bench_soak.py runs a short one",
    "make profile": "needs leave to look at processes; tests/bench/test_bench_profile.py runs it",
    "make deb": "takes minutes; tests/service/test_package.py builds and installs it",
    "sudo ": "changes the machine; tests/service/test_package.py installs into a folder",
    ".venv/bin/matchd top": "needs a terminal: tests/top/test_top_terminal.py drives it in one",
    "prometheus ": "another program: tests/observability hands it the same files",
    "cp -r config/grafana": "another program's folders; tests/observability reads the same files",
    "mkdir -p /var/lib/grafana": "the same",
    "cp config/grafana": "the same",
    "systemctl restart grafana-server": "the same",
    "tshark ": "needs a capture; tests/codecs makes some and hands them to it",
}

# Commands of `matchd` in code spans. All others that are whole are run, but for the examples of
# docs/commands.md, which tests/house/test_commands_page.py has the parser read.
SPANS_NOT_RUN = {
    "matchd run": "has no end; every venue of these tests is started by it",
    "matchd top": "needs a terminal: tests/top/test_top_terminal.py drives it in one",
    "matchd journal repair": "cuts the log; tests/house/test_cli_venue.py does it",
}
