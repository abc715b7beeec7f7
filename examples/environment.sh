# Find `difformer` and fairseq's commands: on the PATH, or else in the .venv of this checkout.
if ! command -v difformer >/dev/null; then
  bin=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv/bin
  if [ ! -x "$bin/difformer" ]; then
    echo "error: no difformer on the PATH: activate the environment that it is installed in, or" \
      "run make install" >&2
    exit 2
  fi
  PATH=$bin:$PATH
fi
