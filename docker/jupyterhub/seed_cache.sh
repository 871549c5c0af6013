#!/bin/sh
# Before a learner's first program: copy the class's compile cache and notebooks, where there are none yet.
#   seed_cache.sh COMMAND...     MINILLAMA_CACHE_SEED: a folder with the content of ~/.cache/minillama
# minillama runs cached programs, so it takes only those that belong to the user: a copy, not a shared folder.
set -eu
seed=${MINILLAMA_CACHE_SEED:-}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/minillama
if [ -n "$seed" ] && [ -d "$seed" ] && [ ! -e "$cache" ]; then
  mkdir -p -- "$(dirname -- "$cache")"
  cp -R -- "$seed" "$cache.new"
  chmod -R u+rwX,go-w -- "$cache.new"
  mv -- "$cache.new" "$cache"
fi
python3 -c '
from pathlib import Path
from minillama.course.packing.pack_folder import copy_file
from minillama.course.packing.pack_labs import lab_numbers, student_files
from minillama.engine.loading.model_files import labs_folder
folder = labs_folder()
for name, path in student_files(folder, lab_numbers(folder)).items():
    if not Path("labs", name).exists():
        copy_file(path, Path("labs", name))' || echo "seed_cache.sh: the labs were not copied; run: minillama lab" >&2
exec "$@"
