#!/usr/bin/env bash
# A small history and its site, in five to ten minutes: a few layers at five commits whose effect can be seen, or at those given.
# What was measured before is kept.
#     benchmarks/history.sh [COMMIT ...] && asv preview --config benchmarks/asv.conf.json
set -euo pipefail
cd "$(dirname "$0")"

commits=(
    93909fa # every kind of layer, by direct loops
    74d3285 # register tiles for dense layers
    278ea23 # Winograd for 3x3 layers
    08e7e04 # register tiles for depthwise, separable and transposed layers
    HEAD
)
[ $# -eq 0 ] || commits=("$@")

layers="resnet_3x3_28|pw_14_512|dw_112_32|sep_14_512|atrous_r2_28_256|up_28_64_32"
asv machine --yes
git rev-parse "${commits[@]}" | asv run --skip-existing-successful HASHFILE:- \
    --bench "(time_layer|track_time_over_peak)\\('($layers)', 'auto', 1\\)" \
    --bench "track_time_over_peer\\('($layers)', 'onnxruntime', 1\\)" \
    --bench "Calls.time_function\\('conv2d'|start.Import.track" || echo "asv: status $?; what failed says so above"
asv publish
