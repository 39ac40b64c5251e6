# Sourced by the other scripts: makes the project's own Python environment in .venv, once, and activates it.
# A change of pyproject.toml or constraints.txt installs anew. DEIXIS_PYTHON names another interpreter,
# DEIXIS_CONSTRAINTS=constraints-lowest.txt other versions, which go into .venv-lowest.
set -euo pipefail
unset PYTHONDONTWRITEBYTECODE # tests start some hundred processes, which would all compile deixis anew
cd "$(dirname "${BASH_SOURCE[0]}")/.."

constraints="${DEIXIS_CONSTRAINTS:-constraints.txt}"
environment="$(basename "$constraints" .txt)"
environment=".venv${environment#constraints}"

find_python() {
    local candidate
    for candidate in "${DEIXIS_PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11 python; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "deixis needs Python 3.11 or newer; install it, or set DEIXIS_PYTHON to its path" >&2
    return 2
}

install() { # install EXTRA: the package, editable, with an extra
    # --no-compile: half of the time is compiling files of which few are ever imported
    local pip=(python -m pip install --quiet --disable-pip-version-check --no-compile --constraint "$constraints")
    "${pip[@]}" torch
    "${pip[@]}" --editable "$1"
}

prepare() { # prepare NAME SPEC: the environment for one purpose, kept until its inputs change
    local stamp="$environment/.installed-$1" wanted
    wanted="$(cat pyproject.toml "$constraints" | cksum)"
    if [ ! -x "$environment/bin/python" ]; then
        local python
        python="$(find_python)"
        echo "Making an environment in $environment with $("$python" --version)" >&2
        "$python" -m venv "$environment"
    fi
    # shellcheck disable=SC1091
    . "$environment/bin/activate"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        echo "Installing deixis and what it needs (a few minutes, once)" >&2
        install "$2"
        echo "$wanted" >"$stamp"
    fi
}
