"""What steps of an image's build run: texts for ``/bin/sh``, none of them made from a value.

Values are their arguments. Secrets are files below ``/run/secrets`` while a step runs, and need not be there.
"""

from __future__ import annotations

__all__ = [
    "CONDA", "CONDA_CACHE", "CONDA_PREFIX", "ENTER", "ENVIRONMENT", "INSTALL", "MARK", "PACKAGES", "PYTHON",
    "SYSTEM_CACHE", "UV_CACHE",
]  # fmt: skip

MARK = "bentotool:"
"""Starts the lines with which a script here says why it ends."""
PACKAGES = "/opt/bentotool/packages"
"""Where the lock, wheels and uv are while packages are installed."""
PYTHON = "/opt/python"
"""Where an interpreter lies that the base does not have."""
CONDA_PREFIX = "/opt/bentotool/conda"
"""Where conda's packages lie. They cannot be moved: their files hold this path."""
UV_CACHE = "/var/cache/bentotool/uv"
CONDA_CACHE = "/var/cache/bentotool/conda"
SYSTEM_CACHE = "/var/cache/bentotool/system"
"""Where a distribution's package manager keeps what it downloaded, if the builder mounts something there."""

_SECRETS = """
if [ -f /run/secrets/bentotool-ca ]; then
  SSL_CERT_FILE=/run/secrets/bentotool-ca
  PIP_CERT=$SSL_CERT_FILE REQUESTS_CA_BUNDLE=$SSL_CERT_FILE CURL_CA_BUNDLE=$SSL_CERT_FILE GIT_SSL_CAINFO=$SSL_CERT_FILE
  NODE_EXTRA_CA_CERTS=$SSL_CERT_FILE SSL_CA_CERT_FILE=$SSL_CERT_FILE
  CONDA_SSL_VERIFY=$SSL_CERT_FILE MAMBA_SSL_VERIFY=$SSL_CERT_FILE
  export SSL_CERT_FILE PIP_CERT REQUESTS_CA_BUNDLE CURL_CA_BUNDLE GIT_SSL_CAINFO NODE_EXTRA_CA_CERTS SSL_CA_CERT_FILE
  export CONDA_SSL_VERIFY MAMBA_SSL_VERIFY
fi
if [ -f /run/secrets/bentotool-env ]; then set -a; . /run/secrets/bentotool-env; set +a; fi
""".strip()

ENTER = f'{_SECRETS}\nexec "$@"'
"""Run the program that the arguments are."""

INSTALL = f"""
set -eu
{_SECRETS}
cache={SYSTEM_CACHE}
[ -d "$cache" ] || cache=
ca=${{SSL_CERT_FILE:-}}
compilers=
for each do
  shift
  if [ "$each" = @compilers ]; then compilers=1; else set -- "$@" "$each"; fi
done
if command -v apt-get >/dev/null; then
  if [ -n "$compilers" ]; then
    set -- "$@" build-essential pkg-config
    if [ -x /usr/bin/python3 ]; then set -- "$@" python3-dev; fi
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt() {{ apt-get ${{ca:+-oAcquire::https::CAInfo=$ca}} -q "$@"; }}
  if [ -n "$cache" ]; then
    mkdir -p "$cache/apt/archives/partial" "$cache/lists/partial"
    apt() {{
      apt-get ${{ca:+-oAcquire::https::CAInfo=$ca}} -q -o "Dir::Cache=$cache/apt" -o "Dir::State::lists=$cache/lists" \\
        -o APT::Keep-Downloaded-Packages=true -o APT::Sandbox::User=root "$@"
    }}
  fi
  apt update
  apt install --yes --no-install-recommends -- "$@"
  rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb /var/cache/apt/*.bin /var/log/apt /var/log/dpkg.log
elif command -v apk >/dev/null; then
  [ -z "$compilers" ] || set -- "$@" build-base pkgconf
  if [ -n "$cache" ]; then
    mkdir -p "$cache/apk"
    apk add --update-cache --cache-dir "$cache/apk" -- "$@"
  else
    apk add --no-cache -- "$@"
  fi
else
  [ -z "$compilers" ] || set -- "$@" gcc gcc-c++ make
  for each in dnf microdnf yum none; do
    if command -v "$each" >/dev/null; then break; fi
  done
  keep=
  case $each in
  none)
    echo "{MARK} the base image has none of apt-get, apk, dnf, microdnf and yum" >&2
    exit 64 ;;
  dnf)
    keep=$cache
    set -- --setopt=install_weak_deps=0 ${{keep:+--setopt=cachedir=$keep/rpm --setopt=keepcache=1}} --nodocs "$@" ;;
  microdnf) set -- --setopt=install_weak_deps=0 --nodocs "$@" ;;
  yum) set -- --setopt=tsflags=nodocs "$@" ;;
  esac
  "$each" install -y ${{ca:+--setopt=sslcacert=$ca}} "$@"
  [ -n "$keep" ] || "$each" clean all
  rm -rf /var/cache/dnf /var/cache/yum /var/cache/libdnf5 /var/log/dnf* /var/log/yum*
fi
""".strip()  # noqa: S608  # for sh, not SQL
"""Install the packages that are the arguments, with whatever the base image has for it."""

CONDA = f"""
set -eu
prefix=$1 cuda=$2
shift 2
{_SECRETS}
if [ -f /run/secrets/bentotool-conda ]; then
  export CONDARC=/run/secrets/bentotool-conda MAMBARC=/run/secrets/bentotool-conda
fi
if [ -n "$cuda" ]; then export CONDA_OVERRIDE_CUDA=$cuda; fi
mkdir -p {CONDA_CACHE}
export CONDA_PKGS_DIRS={CONDA_CACHE} CONDA_ALWAYS_COPY=true MAMBA_ALWAYS_COPY=true
for each in micromamba mamba conda none; do
  if command -v "$each" >/dev/null; then break; fi
done
if [ "$each" = none ]; then
  echo "{MARK} no-conda: the image has none of micromamba, mamba and conda" >&2
  exit 66
fi
"$each" create --yes --quiet --prefix "$prefix" "$@"
rm -f "$prefix/conda-meta/history"
for each in "$prefix"/conda-meta/*.json; do  # addresses of channels may hold a token or a password
  if [ -f "$each" ]; then sed -i -E -e 's#/t/[^/"]+/#/#g' -e 's#://[^/"@]*@#://#g' "$each"; fi
done
""".strip()
"""Make an environment of conda: prefix, version of CUDA or nothing, and arguments of ``create``."""

ENVIRONMENT = f"""
set -eu
python=$1 prefix=$2 uv_version=$3 managed=$4 bytecode=$5
shift 5
{_SECRETS}
if [ -f /run/secrets/bentotool-index ]; then set -a; . /run/secrets/bentotool-index; set +a; fi
if [ -f /run/secrets/bentotool-uv ]; then export UV_CONFIG_FILE=/run/secrets/bentotool-uv; fi
if [ -f /run/secrets/bentotool-netrc ]; then export NETRC=/run/secrets/bentotool-netrc; fi
export UV_CACHE_DIR={UV_CACHE} UV_LINK_MODE=copy UV_NO_PROGRESS=1 UV_PYTHON_DOWNLOADS=never
export PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
found=$(command -v "python$python" || true)
if [ -z "$found" ] && [ -z "$managed" ]; then
  echo "{MARK} no-python: the base image has no Python $python" >&2
  exit 65
fi
uv={PACKAGES}/uv
if ! "$uv" --version >/dev/null 2>&1; then
  # what the host brought does not run here: another system, processor or C library
  "${{found:-python3}}" -m pip install -q --target /tmp/bentotool-uv "uv==$uv_version"
  uv=/tmp/bentotool-uv/bin/uv
fi
if [ -z "$found" ]; then
  UV_PYTHON_DOWNLOADS=automatic "$uv" python install --install-dir /tmp/bentotool-python "$python"
  for each in /tmp/bentotool-python/cpython-*; do  # beside the folder there may be links to it
    if [ ! -L "$each" ]; then mv "$each" {PYTHON}; fi
  done
  found={PYTHON}/bin/python$python
fi
if [ -n "$managed" ]; then mkdir -p {PYTHON}; fi
"$uv" -q venv --python "$found" "$prefix"
if grep -q '^[A-Za-z0-9]' {PACKAGES}/bento.lock; then
  "$uv" pip install --python "$prefix/bin/python" --require-hashes --color never "$@" -r {PACKAGES}/bento.lock
fi
if [ -n "$bytecode" ]; then  # a file that does not compile is compiled when it is asked for, and says so then
  "$prefix/bin/python" -I -m compileall -qq --invalidation-mode unchecked-hash "$prefix/lib" || true
fi
case $found in
{CONDA_PREFIX}/*)  # what conda brought is seen, too; only now, as uv would otherwise replace packages there
  sed -i 's/^include-system-site-packages = .*/include-system-site-packages = true/' "$prefix/pyvenv.cfg" ;;
esac
# Equal content has equal times, whenever it is installed.
"$prefix/bin/python" -I -c '
import os, sys
for place, folders, names in os.walk(sys.argv[1], topdown=False):
    for each in (*names, *folders, "."):
        os.utime(os.path.join(place, each), (0, 0), follow_symlinks=False)
' "$prefix"
""".strip()
"""Make the Python environment: version, prefix, version of uv, whether Python may be brought, whether to compile."""
