#!/bin/sh
# Install minillama @{version} and the labs from this folder, without a network.
#   sh install.sh [FOLDER]     FOLDER: where to install (default: ~/minillama-course)
#   PYTHON=/path/to/python3    the interpreter to use (default: the first that fits)
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
target=${1:-"$HOME/minillama-course"}

fail() {
  printf 'install.sh: %s\n' "$1" >&2
  exit 2
}

case $target in
  -*)
    sed -n '2,4s/^# *//p' "$0"
    exit 0
    ;;
esac
[ $# -le 1 ] || fail "$2: one word too many; the only argument is the folder to install into"
[ -f "$here/@{lock}" ] || fail "$here/@{lock} is missing; copy the whole pack"

fits() {
  "$1" -c 'import platform, sys
sys.exit((platform.system(), platform.machine(), *sys.version_info[:2]) != ("@{system}", "@{machine}", @{major}, @{minor}))' 2>/dev/null
}

python=
for name in ${PYTHON:+"$PYTHON"} python@{major}.@{minor} python3 python; do
  if fits "$name"; then
    python=$name
    break
  fi
  [ "$name" != "${PYTHON:-}" ] || fail "PYTHON=$PYTHON is not @{python} on @{platform}, which this pack is for"
done
[ -n "$python" ] || fail "no @{python} for @{platform} found; install it, or name it: PYTHON=/path/to/python sh install.sh"

printf '1 of 3: an environment in %s\n' "$target/venv"
mkdir -p -- "$target" || fail "cannot create $target; name another folder: sh install.sh FOLDER"
target=$(CDPATH='' cd -- "$target" && pwd)
"$python" -m venv "$target/venv" ||
  fail "no environment could be made (Debian and Ubuntu: apt install python@{major}.@{minor}-venv)"

printf '2 of 3: @{wheels} packages; one to four minutes\n'
# Without pip's configuration: it may name other indexes or constraints.
PIP_CONFIG_FILE=/dev/null "$target/venv/bin/python" -m pip --isolated --disable-pip-version-check install \
  --quiet --no-index --find-links "$here/wheels" --require-hashes -r "$here/@{lock}" ||
  fail "pip could not install the packages; check the copy of the pack: cd '$here' && sha256sum -c SHA256SUMS"

printf '3 of 3: notebooks and models; your own files stay\n'
for part in notebooks models; do
  (cd -- "$here/$part" && find . -type f) | while IFS= read -r file; do
    [ ! -e "$target/$part/$file" ] || continue
    mkdir -p -- "$(dirname -- "$target/$part/$file")"
    cp -- "$here/$part/$file" "$target/$part/$file"
  done
done

cat >"$target/start.sh" <<'END'
#!/bin/sh
# Open the labs: sh start.sh [LAB] [--lang zh]
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
exec "$here/venv/bin/minillama" lab --dir "$here/notebooks" "$@"
END
chmod +x "$target/start.sh"

"$target/venv/bin/minillama" run -p "Once upon a time" -n 16 -s 1 --no-perf ||
  fail "minillama is installed, but does not run; see: $target/venv/bin/minillama doctor"
printf '\ninstalled. Open lab 00:  sh %s/start.sh\n' "$target"
