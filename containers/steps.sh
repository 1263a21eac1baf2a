#!/bin/sh
# What the Dockerfiles do, as two steps that also run in any Debian or Ubuntu root without them.
set -eu

home=/opt/cmlr-edge
user_id=10001

add_packages() {
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
  rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb /var/log/apt /var/log/dpkg.log
}

# SOURCE WHEELS: build the wheel, whose native parts need a compiler that the image does not keep.
build() {
  add_packages ca-certificates g++ python3-dev python3-venv
  python3 -m venv /tmp/build
  /tmp/build/bin/pip wheel --quiet --no-deps --wheel-dir "$2" "$1"
}

# WHEELS EXTRAS: install it with what it needs, for a user who owns nothing but the folder of its state.
install() {
  add_packages ca-certificates python3 python3-venv
  wheel=$(echo "$1"/cmlr_edge-*.whl) extras=$2
  case "$extras" in
    *cpu*) python3 -m venv "$home" ; set -- ;;
    *)  # the image brings OpenCV, made for NumPy 1, and CUDA, whose bindings are of the same number
      python3 -m venv --system-site-packages "$home"
      cuda=$(readlink -f /usr/local/cuda | sed -n 's/.*cuda-\([0-9]*\).*/\1/p')
      set -- "numpy<2" ${cuda:+"cuda-bindings==$cuda.*"} ;;
  esac
  "$home/bin/pip" install --quiet --no-cache-dir --no-compile "$wheel[$extras]" "$@"
  ln -s "$("$home/bin/python" -c 'import cmlr_edge; print(cmlr_edge.demo_engine().parent)')" "$home/model"
  mkdir -p /etc/cmlr-edge /var/lib/cmlr-edge
  chown "$user_id:$user_id" /var/lib/cmlr-edge
}

# Whether the service answers, for a health check: no curl is in the image.
healthy() {
  exec "$home/bin/python" -c '
import os, sys, urllib.request
address = "http://127.0.0.1:" + os.environ.get("CMLR_PORT", "8000") + "/healthz"
sys.exit(urllib.request.urlopen(address, timeout=3).status != 200)'
}

"$@"
