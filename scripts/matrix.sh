#!/usr/bin/env bash
# Test several versions of Python and torch, and print a table of the results.
#
#   scripts/matrix.sh [PYTHON:TORCH ...]    (default: 3.11:2.6.0 3.11:2.13.0 3.12:2.13.0 3.13:2.14.1)
#
# Each pair gets an environment in .matrix/, which is built once, by `make install`. In it run
# `make check` and the integration tests that are not slow. PYTHON is found by pyenv, or as
# pythonPYTHON on PATH.
#
# Environment variables:
#   CAPABILITY  instructions that torch may use (ATEN_CPU_CAPABILITY: default, avx2 or avx512);
#               all that the CPU has by default
#   TESTS       what runs after `make check` (tests/integration)
#
# The logs are .matrix/PYTHON-TORCH.log. The exit status is 1 if a pair fails.
set -uo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- 3.11:2.6.0 3.11:2.13.0 3.12:2.13.0 3.13:2.14.1
[ -z "${CAPABILITY-}" ] || export ATEN_CPU_CAPABILITY=$CAPABILITY
mkdir -p .matrix

# The interpreter of a version such as 3.12.
find_python() {
  local latest
  if latest=$(pyenv latest "$1" 2>/dev/null); then
    echo "$(pyenv prefix "$latest")/bin/python"
  else
    command -v "python$1"
  fi
}

# The last line of a log that tells how many tests passed, without its decoration.
summary() {
  grep -E '[0-9]+ (passed|failed|error)' "$1" | tail -n 1 | tr -d '=' | sed 's/^ *//; s/ *$//'
}

status=0
rows=()
for pair in "$@"; do
  version=${pair%%:*} torch=${pair#*:}
  name=$version-$torch log=.matrix/$version-$torch.log
  : >"$log"
  if ! python=$(find_python "$version"); then
    rows+=("| $version | $torch | | no Python $version: install it with pyenv | |")
    status=1
    continue
  fi
  run=(make --no-print-directory PYTHON="$python" TORCH="torch==$torch" VENV=".matrix/$name")
  echo "$pair: installing ($log)" >&2
  if ! "${run[@]}" install >>"$log" 2>&1; then
    rows+=("| $version | $torch | | does not install | |")
    status=1
    continue
  fi
  cpu=$(".matrix/$name/bin/python" -c 'import torch; print(torch.backends.cpu.get_cpu_capability())')
  results=()
  for tests in check integration; do
    echo "$pair: $tests" >&2
    part=.matrix/$name-$tests.log
    if [ "$tests" = check ]; then
      "${run[@]}" check >"$part" 2>&1
    else
      ".matrix/$name/bin/python" -m pytest -q -n auto --maxprocesses 4 --dist loadfile \
        -m "not slow" ${TESTS-tests/integration} >"$part" 2>&1
    fi
    [ $? = 0 ] && verdict=ok || { verdict=FAILED status=1; }
    cat "$part" >>"$log"
    results+=("$verdict: $(summary "$part")")
    rm "$part"
  done
  rows+=("| $version | $torch | $cpu | ${results[0]} | ${results[1]} |")
done

echo "| Python | torch | CPU | \`make check\` | \`${TESTS-tests/integration}\` |"
echo "|---|---|---|---|---|"
printf '%s\n' "${rows[@]}"
exit $status
