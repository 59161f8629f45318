#!/usr/bin/env bash
# Build the Dockerfile's image where there is no container engine: buildah in a chroot, on a base that debootstrap
# makes. For Debian and root; tests/image then tries what it leaves:
#
#   tools/image_root.sh OUT [--weights BUNDLE] [buildah's options]
#   TEST_IMAGE=OUT pytest tests/image
#
# OUT/root is the image's root, OUT/base the base's, OUT/config.json what the image runs and as whom.
set -euo pipefail
out=$(realpath -m "$1")
shift
weights=.
if [ "${1:-}" = --weights ]; then
    weights=$2
    shift 2
fi
buildah() { command buildah --storage-driver vfs --root "$out/store" --runroot "$out/run" "$@"; }
mkdir -p "$out"

if ! [ -e "$out/base/made" ]; then
    rm -rf "$out/base"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$out/base" > "$out/base.log"
    chroot "$out/base" python3 -m venv /usr/local # python and pip where the official image has them
    rm -rf "$out"/base/var/cache/apt/archives/*.deb "$out"/base/var/lib/apt/lists/*
    touch "$out/base/made"
fi
container=$(buildah from scratch)
buildah add --quiet "$container" "$out/base" / > /dev/null
buildah config --env PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
buildah commit --quiet "$container" localhost/python:3.11-slim > /dev/null
buildah rm "$container" > /dev/null

rm -rf "$out/context" "$out/root"
mkdir "$out/context"
git archive HEAD | tar --extract --directory "$out/context"
cp -r "$weights/ensemble output" "$weights/detection output" "$out/context"
buildah bud --isolation chroot --pull-never --layers=false --format docker \
    --build-arg BASE=localhost/python:3.11-slim "$@" --tag localhost/spinexr "$out/context"
container=$(buildah from --pull-never localhost/spinexr)
cp --archive "$(buildah mount "$container")" "$out/root"
buildah inspect --type image localhost/spinexr \
    | python3 -c 'import json, sys; print(json.dumps(json.load(sys.stdin)["Docker"]["config"]))' > "$out/config.json"
buildah rm "$container" > /dev/null
rm -rf "$out/store" "$out/run" "$out/context"
