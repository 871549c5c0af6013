#!/bin/sh
# Fill the folder that a class shares: models, a compile cache, a folder for the lock of measurements.
#   prepare.sh [FOLDER] [LAB...]      (default: /srv/minillama, labs 00 01 03 04 05)
# Run it on a machine of the learners' processor type: programs of another one are not used.
set -eu
shared=${1:-/srv/minillama}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- 00 01 03 04 05
umask 022
mkdir -p -- "$shared/cache" "$shared/lock"
shared=$(CDPATH='' cd -- "$shared" && pwd)
chmod 1777 "$shared/lock" # learners have other users
python3 -m minillama.lab.prepare_models "$shared/models"
chmod -R a+rX "$shared/models"

scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
labs=$(python3 -c 'from minillama.engine.loading.model_files import labs_folder; print(labs_folder())')
XDG_CACHE_HOME=$scratch/cache
MINILLAMA_LAB_MODELS=$shared/models
export XDG_CACHE_HOME MINILLAMA_LAB_MODELS
for lab in "$@"; do
  printf 'lab %s: run once, to compile its programs\n' "$lab"
  python3 -m jupyter nbconvert --to notebook --execute --allow-errors --log-level WARN \
    --output-dir "$scratch" "$labs/${lab}_"*.ipynb
done
rm -rf -- "$shared/cache"
cp -R -- "$scratch/cache/minillama" "$shared/cache"
chmod -R a+rX "$shared/cache"
du -sh "$shared/models" "$shared/cache"
