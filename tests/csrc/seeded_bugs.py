"""Mistakes to put into the CUDA kernels, and the check that must notice each."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.csrc.emulation.emulated_gpu import CSRC, Build


@dataclass(frozen=True)
class Bug:
    """`file` under csrc with `right`, found once, replaced by `wrong`.

    "quick" is a build without a sanitizer: comparison with NumPy, and the emulation's own checks.
    """

    file: str
    right: str
    wrong: str
    noticed_by: Build = "quick"

    def copy_with_bug(self, folder: Path) -> Path:
        """A copy of csrc with this mistake in it."""
        copy = folder / "csrc"
        shutil.copytree(CSRC, copy)
        source = copy / self.file
        text = source.read_text()
        assert text.count(self.right) == 1, f"{self.right!r} should be in {self.file} once"
        source.write_text(text.replace(self.right, self.wrong))
        if self.file in _OTHER_KERNELS:
            (copy / LAUNCHER).write_text(launcher_of(copy, self.file))
        return copy


def launcher_of(csrc: Path, kernels: str) -> str:
    """The source that launches the kernels of one file alone: to compile the others takes most of the time."""
    text, left_out = re.subn(_OTHER_KERNELS[kernels], "", (csrc / LAUNCHER).read_text())
    assert left_out
    return text


F16, F32 = "cuda/attention_f16.cuh", "cuda/attention_f32.cuh"
BLOCK, LAUNCHER, DEVICE = "cuda/attention_block.cuh", "cuda/attention.cu", "cuda/device.h"
FRAME, FRAME_LAUNCHER = "cuda/frame.cuh", "cuda/frame.cu"
PLUGIN, HOST_LOG = "tensorrt/plugin.cpp", "tensorrt/host_log.h"
_OTHER_KERNELS = {
    F16: r"  if \(p\.element == Element::kFloat32\)\n    return [^;]*;\n",
    F32: r"  (if \(keys <= \d+\) return )?launch_f16<kWidth[^;]*;\n",
}

BUGS = {
    "barrier before the merge dropped, fp16": Bug(
        F16, "leave_partial();\n    __syncthreads();", "leave_partial();"
    ),
    "barrier before the merge dropped, fp32": Bug(
        F32, "store_partial();\n  __syncthreads();", "store_partial();"
    ),
    "barrier after copying queries dropped": Bug(
        F32, "warp.queries));\n  __syncthreads();", "warp.queries));"
    ),
    "warp not synchronised after the wait, fp16": Bug(
        F16,
        "wait_async_copies<kStages - 1>();\n    __syncwarp();",
        "wait_async_copies<kStages - 1>();",
        "thread",
    ),
    "warp not synchronised after the wait, fp32": Bug(
        F32, "wait_async_copies<1>();\n    __syncwarp();", "wait_async_copies<1>();"
    ),
    "values written again while still read": Bug(
        F16, "__syncwarp();  // before the values", "// before the values", "thread"
    ),
    "panel written again while still read": Bug(
        F32, "__syncwarp();  // before the panel", "// before the panel"
    ),
    "wait for copies too weak, fp16": Bug(
        F16, "wait_async_copies<kStages - 1>", "wait_async_copies<kStages>"
    ),
    "wait for copies too weak, fp32": Bug(F32, "wait_async_copies<1>", "wait_async_copies<2>"),
    "copies not waited for at the end": Bug(
        F32, "wait_async_copies<0>();  // the panel", "// the panel"
    ),
    "keys behind the last not masked, fp16": Bug(F16, "if (may_end) {", "if (false) {"),
    "keys behind the last not masked, fp32": Bug(
        F32,
        "exists ? a.scale * score[chunk][q] + bias : minus_infinity()",
        "a.scale * score[chunk][q] + bias",
    ),
    "query fragments swapped": Bug(
        F16,
        "{rows[0][b].x, rows[1][b].x, rows[0][b].y, rows[1][b].y}",
        "{rows[0][b].x, rows[0][b].y, rows[1][b].x, rows[1][b].y}",
    ),
    "value fragments swapped": Bug(
        F16, "swizzled(row, 2 * n + lane / 16)", "swizzled(row, 2 * n + 1 - lane / 16)"
    ),
    "sums not rescaled, fp16": Bug(
        F16, "if (kStages > 1)\n      rescale(", "if (false)\n      rescale("
    ),
    "a partial answer not rescaled, fp16": Bug(
        F16, "first = fast_exp2(other[w].x - reference[0])", "first = 1.0f"
    ),
    "sums not rescaled, fp32": Bug(
        F32, "rescale(q, fast_exp2((largest[q] - reference) * kLog2E))", "rescale(q, 1.0f)"
    ),
    "values take the stride of the keys": Bug(
        F16, "a.value_batch_stride, kWidth", "a.key_batch_stride, kWidth"
    ),
    "a warp merged twice, fp16": Bug(F16, "x = regions[w].partial", "x = regions[1].partial"),
    "a pair of warps merged twice, fp32": Bug(
        F32, "part[w] = regions[w]", "part[w] = regions[w % 2]"
    ),
    "shared memory too small": Bug(
        F16, "kSharedBytes = kWarps * sizeof(Region)", "kSharedBytes = kWarps * sizeof(Region) - 64"
    ),
    "lanes return before the last barrier": Bug(
        F16,
        "    if (warp.warp > 0) warp.leave_partial();",
        "    if (blockIdx.x * 16 + warp.group >= a.num_queries) return;\n"
        "    if (warp.warp > 0) warp.leave_partial();",
    ),
    "keys read behind the last": Bug(
        F16, "min(first + i * 8 + group, rows - 1)", "first + i * 8 + group", "address"
    ),
    "values read behind the last, fp16": Bug(
        F16, "first + skipped < a.num_tokens", "true", "address"
    ),
    "values read behind the last, fp32": Bug(
        F32,
        "static_cast<int64_t>(inside) * a.row + column, row < a.num_tokens",
        "static_cast<int64_t>(row) * a.row + column, true",
        "address",
    ),
    "bias read behind the last": Bug(
        F16,
        "min(token + i / 2 * 8 + i % 2, a.num_tokens - 1)",
        "token + i / 2 * 8 + i % 2",
        "address",
    ),
    "queries written behind the last, fp16": Bug(
        F16, "if (row >= a.num_queries) break;", "", "address"
    ),
    "queries written behind the last, fp32": Bug(
        F32, "if (row >= a.num_queries) break;", "", "address"
    ),
    "values of two steps in one stage": Bug(
        F16, "step % kStages * kChunks", "step / 2 % kStages * kChunks"
    ),
    "panels of two turns in one place": Bug(F32, "ring[n % 2]", "ring[n / 2 % 2]"),
    "copies still landing on partial answers, fp16": Bug(
        F16, "wait_async_copies<0>();  // zeros behind", "// zeros behind"
    ),
    "no score but masked ones, fp16": Bug(F16, "if (total == 0.0f) {", "if (false) {"),
    "no score but masked ones, fp32": Bug(F32, "return total != 0.0f;", "return true;"),
    "masked scores relative to minus infinity": Bug(
        BLOCK, "return largest == minus_infinity() ? 0.0f : largest;", "return largest;"
    ),
    "a boundary between kernels one too far": Bug(LAUNCHER, "keys <= 96", "keys <= 97"),
    "the boundary of two full warps one too far": Bug(LAUNCHER, "keys <= 128)", "keys <= 129)"),
    "the boundary of the looping kernel one too far, fp16": Bug(
        LAUNCHER, "keys <= 256) return launch_f16", "keys <= 257) return launch_f16"
    ),
    "the boundary of the looping kernel one too far, fp32": Bug(
        LAUNCHER, "keys > 128 && keys <= 256", "keys > 128 && keys <= 257"
    ),
    "fewer keys than a chunk not masked": Bug(F16, " || kWarps * kChunks == 2;", ";"),
    "NaN turned into zeros, fp16": Bug(F16, "if (total == 0.0f) {", "if (!(total > 0.0f)) {"),
    "NaN turned into zeros, fp32": Bug(F32, "return total != 0.0f;", "return total > 0.0f;"),
    "large scores overflow, fp32": Bug(
        F32, "fast_exp2((score[chunk][q] - reference) * kLog2E - a.log2_tokens)",
        "fast_exp2(score[chunk][q] * kLog2E - a.log2_tokens) * fast_exp2(-reference * kLog2E)",
    ),
    "sums of large values overflow, fp32": Bug(F32, " * kLog2E - a.log2_tokens)", " * kLog2E)"),
    "the weights of every warp relative to the first's": Bug(
        F32, "largest = fmaxf(largest, part[w].x);", "largest = w ? largest : part[w].x;"
    ),
    "queries take the stride of the keys": Bug(
        F16, "head_slice<uint16_t>(a.query, a.query_batch_stride", "head_slice<uint16_t>(a.query, a.key_batch_stride"
    ),
    "heads written over each other": Bug(
        F32, "blockIdx.z * a.out_batch_stride + blockIdx.y * kWidth", "blockIdx.z * a.out_batch_stride"
    ),
    "a batch that no grid can hold accepted": Bug(LAUNCHER, "p.batch <= 65535 && ", ""),
    "rows addressed with 32 bits, fp16": Bug(
        BLOCK, "static_cast<int64_t>(row) * row_bytes", "row * row_bytes"
    ),
    "rows addressed with 32 bits, fp32": Bug(
        F32, "static_cast<int64_t>(inside) * a.row", "inside * a.row"
    ),
    "answers addressed with 32 bits, fp32": Bug(
        F32, "out + static_cast<int64_t>(row) * a.row", "out + row * a.row"
    ),
    "batch items addressed with 32 bits": Bug(
        BLOCK, "blockIdx.z * batch_stride", "blockIdx.z * static_cast<unsigned>(batch_stride)"
    ),
    "attention launched on another stream": Bug(
        LAUNCHER, "shared_bytes, stream,", "shared_bytes, Stream(),"
    ),
    "a misaligned value accepted": Bug(LAUNCHER, "aligned(p.value) && ", ""),
    "a misaligned bias accepted": Bug(
        LAUNCHER, "reinterpret_cast<uintptr_t>(p.key_bias) % sizeof(float) == 0", "true"
    ),
    "frame launched on another stream": Bug(FRAME_LAUNCHER, "0, stream,", "0, Stream(),"),
    "BGR taken for RGB": Bug(FRAME_LAUNCHER, "PixelFormat::kBgr ? 2 : 0", "PixelFormat::kBgr ? 0 : 0"),
    "packed rows without their pitch": Bug(FRAME, "a.pixels + y * a.row + x * 3", "a.pixels + y * a.width * 3 + x * 3"),
    "a frame that grows on one side shrunk": Bug(
        FRAME, "a.out_width <= a.width && a.out_height", "a.out_width <= a.width || a.out_height"
    ),
    "pixels written behind the row": Bug(FRAME, "if (x >= a.out_width) return;", "", "address"),
    "a misaligned result accepted": Bug(
        FRAME_LAUNCHER, "!p.normalized || reinterpret_cast<uintptr_t>(p.out) % sizeof(float) == 0", "true"
    ),
    "chroma with the pitch of luma": Bug(FRAME, "(y / 2) * a.chroma_row", "(y / 2) * a.row"),
    "pixels of two by two cut off, not rounded": Bug(FRAME, "sum[c] + 0.5f", "sum[c]"),
    "pixels cut off, not rounded": Bug(FRAME, "__float2int_rn(sum[c])", "static_cast<int>(sum[c])"),
    "halves rounded up wherever sides are whole": Bug(FRAME_LAUNCHER, "rows == 2 && columns == 2", "true"),
    "halves of two by two rounded to even": Bug(FRAME_LAUNCHER, "rows == 2 && columns == 2", "false"),
    "whole numbers on one side are enough": Bug(
        FRAME_LAUNCHER, "p.out_height == 0 && p.width % p.out_width == 0", "p.out_height == 0"
    ),
    "a cell ends as it begins": Bug(FRAME, "has_tail ? tail / length", "has_tail ? head / length"),
    "weights of the frame's other side": Bug(
        FRAME, "area_taps(x, a.width, a.out_width)", "area_taps(x, a.height, a.out_width)"
    ),
    "enlarged without the rounding at the end": Bug(FRAME, "(total[c] + 2) >> 2", "total[c] >> 2"),
    "enlarged in float": Bug(FRAME, "Source::kBytes && !kNormalized", "false"),
    "normalised by 256": Bug(FRAME_LAUNCHER, "255.0f * p.std[c]", "256.0f * p.std[c]"),
    "means in the order of BGR": Bug(FRAME_LAUNCHER, "-p.mean[c]", "-p.mean[2 - c]"),
    "enlarged in single precision": Bug(
        FRAME, "linear_taps(int index, double inverse", "linear_taps(int index, float inverse"
    ),
    "one timing for every plugin": Bug(
        PLUGIN, "getTimingCacheID() noexcept override { return description_.c_str(); }",
        'getTimingCacheID() noexcept override { return "cmlr"; }', "address",
    ),
    "plugin enqueued on another stream": Bug(
        PLUGIN, "cmlr::cuda::attention(p, stream);", "cmlr::cuda::attention(p, stream ? nullptr : stream);", "address"
    ),
    "values take the batch of the keys": Bug(
        PLUGIN, 'batch_stride(value, batch, "value")', 'batch_stride(value.nbDims == 3 ? key : value, batch, "value")', "address"
    ),
    "the bias of an engine forgotten": Bug(
        PLUGIN, "attributes.num_inputs = integer_of(field);", "", "address"
    ),
    "a logger called where TensorRT 11 has it": Bug(
        HOST_LOG, "kBehindVersionedInterface : kFirstEntry;", "kBehindVersionedInterface : 1;",
        "address",
    ),
}  # fmt: skip

# Where the emulation runs other code than the GPU does: noticed in what nvcc makes of it.
MACHINE_CODE_BUGS = {
    "two halves of a word swapped": Bug(DEVICE, '"f"(high), "f"(low)', '"f"(low), "f"(high)'),
    "half of a product left out": Bug(DEVICE, '"r"(b[0]), "r"(b[1])', '"r"(b[0]), "r"(b[0])'),
    "a wait for one group of copies less": Bug(
        DEVICE, '"n"(kGroupsInFlight)', '"n"(kGroupsInFlight + 1)'
    ),
    "fewer threads promised than launched": Bug(
        F16, "__launch_bounds__(32 * kWarps,", "__launch_bounds__(16 * kWarps,"
    ),
    "a launch that failed not told": Bug(
        LAUNCHER, "if (error != cudaSuccess)", "if (error == cudaErrorUnknown)"
    ),
}
