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
from minillama.course.copies.student_labs import copy_student_labs
from minillama.engine.loading.model_files import labs_folder
copy_student_labs(labs_folder(), Path("labs"))' || echo "seed_cache.sh: the labs were not copied; run: minillama lab" >&2
exec "$@"
