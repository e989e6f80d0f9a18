"""The table of real layers, and how a problem becomes a layer that can be called.

`LAYERS` are those that kernels are tuned on; `MORE_LAYERS` are the kinds that the first table lacks; `OTHER_LAYERS` and
`SURVEY_LAYERS` are those that show whether the tuning holds elsewhere.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

import fastconv as fc
from fastconv.cpu.packing import aligned_copy
from fastconv.problem import Problem, SeparableProblem

Array = np.ndarray[Any, Any]
AnyProblem = Problem | SeparableProblem


def _table(text: str) -> dict[str, Any]:
    """Name to problem, from lines of a name and a problem's text."""
    return {name: Problem.parse(problem) for name, problem in map(str.split, text.strip().splitlines())}


LAYERS: dict[str, Problem] = _table("""
    resnet_conv1      conv2d,n1c3i224f64k7s2p3,bias,relu
    resnet_3x3_56     conv2d,n1c64i56f64k3p1,bias,relu
    resnet_3x3_28     conv2d,n1c128i28f128k3p1,bias,relu
    resnet_3x3_14     conv2d,n1c256i14f256k3p1,bias,relu
    resnet_3x3_7      conv2d,n1c512i7f512k3p1,bias,relu
    resnet_3x3_s2     conv2d,n1c128i56f128k3s2p1,bias,relu
    pw_56_64_128      conv2d,n1c64i56f128k1,bias,relu
    pw_14_512         conv2d,n1c512i14f512k1,bias,relu
    pw_28_192_32      conv2d,n1c192i28f32k1,bias,relu
    pw_7_1024         conv2d,n1c1024i7f1024k1,bias,relu
    dw_112_32         conv2d,n1c32i112f32k3p1g32,bias,relu
    dw_112_64_s2      conv2d,n1c64i112f64k3s2p1g64,bias,relu
    dw_14_512         conv2d,n1c512i14f512k3p1g512,bias,relu
    dw5_14_672        conv2d,n1c672i14f672k5p2g672,bias,relu
    atrous_r2_28_256  conv2d,n1c256i28f256k3p2d2,bias,relu
    atrous_r12_33     conv2d,n1c256i33f256k3p12d12,bias,relu
    seed_128_rgb      conv2d,n1c3i128f32k3,bias,relu
    grouped32_28      conv2d,n1c256i28f256k3p1g32,bias,relu
""")

# Blocks of MobileNet v1, v2 and v3, whose pointwise expansion is a layer of its own; the up-sampling layers of a decoder, and
# what training adds.
MORE_LAYERS: dict[str, AnyProblem] = _table("""
    sep_112_32_64     conv2d,n1c32i112f32k3p1g32,bias,relu+conv2d,n1c32i112f64k1,bias,relu
    sep_28_256        conv2d,n1c256i28f256k3p1g256,bias,relu+conv2d,n1c256i28f256k1,bias,relu
    sep_14_512        conv2d,n1c512i14f512k3p1g512,bias,relu+conv2d,n1c512i14f512k1,bias,relu
    sep_7_1024        conv2d,n1c1024i7f1024k3p1g1024,bias,relu+conv2d,n1c1024i7f1024k1,bias,relu
    sep2_28_192_32    conv2d,n1c192i28f192k3p1g192,bias,relu6+conv2d,n1c192i28f32k1,bias,residual
    sep2_14_384_64    conv2d,n1c384i14f384k3p1g384,bias,relu6+conv2d,n1c384i14f64k1,bias,residual
    sep3_28_120_40    conv2d,n1c120i28f120k5p2g120,bias,relu+conv2d,n1c120i28f40k1,bias,residual
    sep3_14_672_112   conv2d,n1c672i14f672k5p2g672,bias,hardswish+conv2d,n1c672i14f112k1,bias,residual
    dw_112_32_last    conv2d,n1c32i112f32k3p1g32,bias,relu,channels_last
    up_28_64_32       transposed2d,n1c64i28f32k4s2p1,bias,relu
    up_14_128_64      transposed2d,n1c128i14f64k3s2p1o1,bias,relu
    gradw_28_128      weights2d,n1c128i28f128k3p1
    gradw_112_32_dw   weights2d,n1c32i112f32k3p1g32
    gradw_56_128_1x1  weights2d,n1c64i56f128k1
    gradw_64_rgb_b32  weights2d,n32c3i64f32k3s2p1
    gradx_28_128      transposed2d,n1c128i28f128k3p1
    gradx_112_64_dw   transposed2d,n1c64i56f64k3s2p1g64o1
    gradx_64_rgb_b32  transposed2d,n32c32i32f3k3s2p1o1
""")

# Layers that nothing here was tuned on, each from a network or odd on purpose.
OTHER_LAYERS: dict[str, AnyProblem] = _table("""
    vgg16_224_3          conv2d,n1c3i224f64k3p1,bias,relu
    vgg16_224_64         conv2d,n1c64i224f64k3p1,bias,relu
    vgg16_112_128        conv2d,n1c128i112f128k3p1,bias,relu
    vgg16_56_256         conv2d,n1c256i56f256k3p1,bias,relu
    vgg16_28_512         conv2d,n1c512i28f512k3p1,bias,relu
    vgg16_14_512         conv2d,n1c512i14f512k3p1,bias,relu
    yolo_208_32_s2       conv2d,n1c32i208f64k3s2p1,bias,leaky_relu:0.1
    yolo_52_128          conv2d,n1c128i52f256k3p1,bias,leaky_relu:0.1
    yolo_26_512_1x1      conv2d,n1c512i26f256k1,bias,leaky_relu:0.1
    yolo_13_1024         conv2d,n1c512i13f1024k3p1,bias,leaky_relu:0.1
    yolo_13_255_1x1      conv2d,n1c1024i13f255k1,bias
    yolo_80_64_silu      conv2d,n1c64i80f64k3p1,bias,silu
    unet_188_64          conv2d,n1c64i188f64k3,bias,relu
    unet_64_256          conv2d,n1c256i64f256k3,bias,relu
    unet_28_1024         conv2d,n1c512i30f1024k3,bias,relu
    unet_up_28_1024      transposed2d,n1c1024i28f512k2s2,bias
    unet_up_104_128      transposed2d,n1c128i104f64k2s2,bias
    unet_388_2_1x1       conv2d,n1c64i388f2k1,bias
    squeeze_55_64_16     conv2d,n1c64i55f16k1,bias,relu
    squeeze_55_16_64     conv2d,n1c16i55f64k3p1,bias,relu
    squeeze_27_32_128    conv2d,n1c32i27f128k3p1,bias,relu
    squeeze_13_64_256    conv2d,n1c64i13f256k3p1,bias,relu
    mobile2_112_16_96    conv2d,n1c16i112f96k1,bias,relu6
    mobile2_56_144_dw    conv2d,n1c144i56f144k3p1g144,bias,relu6
    mobile2_56_144_24    conv2d,n1c144i56f24k1,bias
    mobile2_112_96_dw_s2 conv2d,n1c96i112f96k3s2p1g96,bias,relu6
    mobile2_14_384_dw    conv2d,n1c384i14f384k3p1g384,bias,relu6
    mobile2_14_384_64    conv2d,n1c384i14f64k1,bias
    mobile2_7_960_dw     conv2d,n1c960i7f960k3p1g960,bias,relu6
    mobile2_7_960_320    conv2d,n1c960i7f320k1,bias
    mobile3_224_3_s2     conv2d,n1c3i224f16k3s2p1,bias,hardswish
    mobile3_56_72_dw5_s2 conv2d,n1c72i56f72k5s2p2g72,bias,relu
    mobile3_28_120_dw5   conv2d,n1c120i28f120k5p2g120,bias,relu
    mobile3_14_480_dw    conv2d,n1c480i14f480k3p1g480,bias,hardswish
    mobile3_14_672_dw5   conv2d,n1c672i14f672k5s2p2g672,bias,hardswish
    mobile3_7_960_dw5    conv2d,n1c960i7f960k5p2g960,bias,hardswish
    mobile3_7_160_960    conv2d,n1c160i7f960k1,bias,hardswish
    resnext_56_128_g32   conv2d,n1c128i56f128k3p1g32,bias,relu
    resnext_28_512_s2    conv2d,n1c512i28f512k3s2p1g32,bias,relu
    resnext_14_512_g32   conv2d,n1c512i14f512k3p1g32,bias,relu
    resnext_7_1024_g32   conv2d,n1c1024i7f1024k3p1g32,bias,relu
    resnext_56_256_s2    conv2d,n1c256i56f256k3s2p1g32,bias,relu
    deeplab_33_512_r6    conv2d,n1c512i33f256k3p6d6,bias,relu
    deeplab_33_512_r18   conv2d,n1c512i33f256k3p18d18,bias,relu
    deeplab_65_256_r2    conv2d,n1c256i65f256k3p2d2,bias,relu
    deeplab_33_960_dw_r2 conv2d,n1c960i33f960k3p2d2g960,bias,relu
    efficient_112_16_dw  conv2d,n1c96i112f96k3s2p1g96,bias,silu
    efficient_28_240_dw5 conv2d,n1c240i28f240k5p2g240,bias,silu
    efficient_14_112_672 conv2d,n1c112i14f672k1,bias,silu
    convnext_56_96_dw7   conv2d,n1c96i56f96k7p3g96,bias
    convnext_14_384_dw7  conv2d,n1c384i14f384k7p3g384,bias
    convnext_56_96_384   conv2d,n1c96i56f384k1,bias,gelu
    convnext_224_4x4_s4  conv2d,n1c3i224f96k4s4,bias
    inception_17_1x7     conv2d,n1c192i17f192k1x7p0x3,bias,relu
    inception_17_7x1     conv2d,n1c192i17f192k7x1p3x0,bias,relu
    inception_35_5x5     conv2d,n1c48i35f64k5p2,bias,relu
    odd_37x53_11         conv2d,n1c11i37x53f17k3p1,bias,relu
    odd_37x53_11_dw      conv2d,n1c11i37x53f11k3p1g11,bias,relu
    odd_37x53_11_1x1     conv2d,n1c11i37x53f17k1,bias,relu
    odd_41x29_s3         conv2d,n1c19i41x29f23k5s3p2,bias,relu
    odd_31x47_d3         conv2d,n1c13i31x47f29k3p3d3,bias,relu
    odd_same_lower       conv2d,n1c24i45x45f40k4p2:1,bias,relu
    multiplier_28_64_m2  conv2d,n1c64i28f128k3p1g64,bias,relu
    batch8_56_64         conv2d,n8c64i56f64k3p1,bias,relu
    batch8_14_256        conv2d,n8c256i14f256k3p1,bias,relu
    batch8_7_512         conv2d,n8c512i7f512k3p1,bias,relu
    batch8_28_128_1x1    conv2d,n8c128i28f128k1,bias,relu
    batch8_7_1024_1x1    conv2d,n8c1024i7f1024k1,bias,relu
    batch8_14_512_dw     conv2d,n8c512i14f512k3p1g512,bias,relu
    batch8_32_rgb        conv2d,n8c3i32f16k3p1,bias,relu
    last_56_64           conv2d,n1c64i56f64k3p1,bias,relu,channels_last
    last_14_512_1x1      conv2d,n1c512i14f512k1,bias,relu,channels_last
    last_112_32_dw       conv2d,n1c32i112f32k3p1g32,bias,relu,channels_last
    last_28_256_r2       conv2d,n1c256i28f256k3p2d2,bias,relu,channels_last
    sep_56_128_s2        conv2d,n1c128i56f128k3s2p1g128,bias,relu+conv2d,n1c128i28f256k1,bias,relu
    signal_16000_64      conv1d,n1c64i16000f64k3p1,bias,relu
    signal_4000_dw31     conv1d,n1c256i4000f256k31p15g256,bias
    volume_16_32         conv3d,n1c32i16f32k3p1,bias,relu
    volume_8_56_video    conv3d,n1c64i8x56x56f64k1x3x3p0x1x1,bias,relu
    decoder_7_512_256    transposed2d,n1c512i7f256k4s2p1,bias,relu
    decoder_56_32_3      transposed2d,n1c32i56f3k4s2p1,bias,tanh
""")

# Dense layers of many more networks, of every kernel, stride, format and number of dimensions: the survey that says where a layer
# that nobody has looked at would lose.
SURVEY_LAYERS: dict[str, AnyProblem] = _table("""
    alexnet_224_11_s4    conv2d,n1c3i224f64k11s4p2,bias,relu
    alexnet_27_5x5       conv2d,n1c64i27f192k5p2,bias,relu
    googlenet_28_5x5     conv2d,n1c16i28f32k5p2,bias,relu
    googlenet_14_5x5     conv2d,n1c24i14f64k5p2,bias,relu
    googlenet_7_5x5      conv2d,n1c48i7f128k5p2,bias,relu
    densenet_56_128_32   conv2d,n1c128i56f32k3p1,bias
    densenet_14_128_32   conv2d,n1c128i14f32k3p1,bias
    densenet_56_256_128  conv2d,n1c256i56f128k1,bias
    densenet_14_640_128  conv2d,n1c640i14f128k1,bias,relu
    densenet_7_1008_128  conv2d,n1c1008i7f128k1,bias,relu
    yolo5_640_6x6_s2     conv2d,n1c3i640f32k6s2p2,bias,silu
    yolo5_160_64_32      conv2d,n1c64i160f32k1,bias,silu
    yolo5_160_64_s2      conv2d,n1c64i160f128k3s2p1,bias,silu
    yolo8_40_128         conv2d,n1c128i40f128k3p1,bias,silu
    yolo8_20_512_s2      conv2d,n1c256i40f512k3s2p1,bias,silu
    yolo5_80_128_255     conv2d,n1c128i80f255k1,bias
    yolo8_20_768_512     conv2d,n1c768i20f512k1,bias,silu
    mobile2_14_96_576    conv2d,n1c96i14f576k1,bias,relu6
    mobile2_28_192_32    conv2d,n1c192i28f32k1,bias
    mobile2_7_320_1280   conv2d,n1c320i7f1280k1,bias,relu6
    mobile2_112_32_16    conv2d,n1c32i112f16k1,bias
    mobile3_14_80_480    conv2d,n1c80i14f480k1,bias,hardswish
    mobile3_28_40_120    conv2d,n1c40i28f120k1,bias,relu
    mobile3_56_72_24     conv2d,n1c72i56f24k1,bias
    efficient_56_24_144  conv2d,n1c24i56f144k1,bias,silu
    efficient_28_40_240  conv2d,n1c40i28f240k1,bias,silu
    efficient_14_480_80  conv2d,n1c480i14f80k1,bias
    efficient_7_1152_192 conv2d,n1c1152i7f192k1,bias
    efficient_7_320_1280 conv2d,n1c320i7f1280k1,bias,silu
    efficient_224_3_s2   conv2d,n1c3i224f32k3s2p1,bias,silu
    resnet50_56_256_64   conv2d,n1c256i56f64k1,bias,relu
    resnet50_14_1024_256 conv2d,n1c1024i14f256k1,bias,relu
    resnet50_7_512_2048  conv2d,n1c512i7f2048k1,bias
    resnet50_56_256_s2   conv2d,n1c256i56f512k1s2,bias
    resnet50_14_1024_s2  conv2d,n1c1024i14f2048k1s2,bias
    resnet18_56_64_s2    conv2d,n1c64i56f128k3s2p1,bias,relu
    resnet18_14_256_s2   conv2d,n1c256i14f512k3s2p1,bias,relu
    regnet_28_g16        conv2d,n1c64i28f64k3p1g4,bias,relu
    regnet_14_g16        conv2d,n1c160i14f160k3p1g10,bias,relu
    regnet_28_g24_s2     conv2d,n1c144i56f144k3s2p1g6,bias,relu
    shuffle_28_240_g3    conv2d,n1c240i28f60k1g3,bias,relu
    deeplab_33_1024_r12  conv2d,n1c1024i33f256k3p12d12,bias,relu
    deeplab_33_512_r24   conv2d,n1c512i33f256k3p24d24,bias,relu
    deeplab_33_512_r4    conv2d,n1c512i33f512k3p4d4,bias,relu
    deeplab_65_304_256   conv2d,n1c304i65f256k3p1,bias,relu
    deeplab_33_2048_1x1  conv2d,n1c2048i33f256k1,bias,relu
    unet_up_52_256       transposed2d,n1c256i52f128k2s2,bias
    decoder_28_64_k3     transposed2d,n1c64i28f32k3s2p1o1,bias,relu
    dcgan_1_100_512      transposed2d,n1c100i1f512k4,bias,relu
    dcgan_16_256_128     transposed2d,n1c256i16f128k4s2p1,bias,relu
    dcgan_32_64_3        transposed2d,n1c64i32f3k4s2p1,bias,tanh
    fcn_16_21_s2         transposed2d,n1c21i16f21k4s2p1
    fcn_34_21_s8         transposed2d,n1c21i34f21k16s8p4
    fsrcnn_64_56_1       transposed2d,n1c56i64f1k9s3p3,bias
    espcn_128_1_64       conv2d,n1c1i128f64k5p2,bias,tanh
    srcnn_96_9x9         conv2d,n1c1i96f64k9p4,bias,relu
    edsr_96_64_3         conv2d,n1c64i96f3k3p1,bias
    vdsr_96_64_1         conv2d,n1c64i96f1k3p1,bias
    vit_224_16x16_s16    conv2d,n1c3i224f192k16s16,bias
    convnext_56_2x2_s2   conv2d,n1c96i56f192k2s2,bias
    convnext_14_2x2_s2   conv2d,n1c384i14f768k2s2,bias
    lenet_28_1_6         conv2d,n1c1i28f6k5p2,bias,relu
    lenet_14_6_16        conv2d,n1c6i14f16k5,bias,relu
    inception_149_32     conv2d,n1c32i149f32k3,bias,relu
    inception_147_64     conv2d,n1c32i147f64k3p1,bias,relu
    inception_35_192_64  conv2d,n1c192i35f64k1,bias,relu
    inception_17_768_192 conv2d,n1c768i17f192k1,bias,relu
    inception_35_s2      conv2d,n1c288i35f384k3s2,bias,relu
    inception_8_1x3      conv2d,n1c384i8f384k1x3p0x1,bias,relu
    inception_8_3x1      conv2d,n1c384i8f384k3x1p1x0,bias,relu
    squeeze_224_7x7_s2   conv2d,n1c3i224f96k7s2,bias,relu
    squeeze_13_512_1000  conv2d,n1c512i13f1000k1,bias,relu
    wav2vec_16000_10_s5  conv1d,n1c1i16000f512k10s5,bias,gelu
    wav2vec_1599_512_s2  conv1d,n1c512i1599f512k3s2,bias,gelu
    wavenet_4000_d64     conv1d,n1c64i4000f128k2d64,bias
    tcn_2000_64_d8       conv1d,n1c64i2000f64k3p8d8,bias,relu
    whisper_3000_80      conv1d,n1c80i3000f384k3p1,bias,gelu
    hifigan_100_256      transposed1d,n1c256i100f128k16s8p4,bias
    c3d_56_3_64          conv3d,n1c3i8x56x56f64k3p1,bias,relu
    c3d_8_28_128         conv3d,n1c64i8x28x28f128k3p1,bias,relu
    r2plus1d_3x1x1       conv3d,n1c144i8x28x28f64k3x1x1p1x0x0,bias,relu
    unet3d_up_16_64      transposed3d,n1c64i8x16x16f32k2s2,bias
    batch8_32_64         conv2d,n8c64i32f64k3p1,bias,relu
    batch8_32_3_64       conv2d,n8c3i32f64k3p1,bias,relu
    batch8_32_64_s2      conv2d,n8c64i32f128k3s2p1,bias,relu
    batch8_14_1x1        conv2d,n8c256i14f256k1,bias,relu
    batch8_14_g32        conv2d,n8c256i14f256k3p1g32,bias,relu
    batch8_28_1x1_s2     conv2d,n8c256i28f512k1s2,bias
    batch32_head_1024    conv2d,n32c1024i1f1000k1,bias
    batch32_4_256        conv2d,n32c256i4f256k3p1,bias,relu
    batch32_8_256_dw_s2  conv2d,n32c256i8f256k3s2p1g256,bias,relu
    gan_4x4_head         conv2d,n32c256i4f1k4,bias
    gan_4x4_first        transposed2d,n32c100i1f256k4
    gan_4_up_512         transposed2d,n32c512i4f256k4s2p1
    odd_19x23_7_9        conv2d,n1c7i19x23f9k3p1,bias,relu
    odd_30x71_1x7        conv2d,n1c33i30x71f37k1x7p0x3,bias,relu
    odd_61_s2            conv2d,n1c37i61f45k3s2p1,bias,relu
    odd_13x200_2x5       conv2d,n1c20i13x200f50k2x5,bias,relu
    odd_23_g3            conv2d,n1c33i23f51k3p1g3,bias,relu
    last_56_128_s2       conv2d,n1c128i56f128k3s2p1,bias,relu,channels_last
    last_28_256_g32      conv2d,n1c256i28f256k3p1g32,bias,relu,channels_last
    last_56_128_g32      conv2d,n1c128i56f128k3p1g32,bias,relu,channels_last
    last_28_512_1x1_s2   conv2d,n1c256i28f512k1s2,bias,channels_last
    last_224_3_64        conv2d,n1c3i224f64k7s2p3,bias,relu,channels_last
    last_up_28_256       transposed2d,n1c256i28f128k2s2,bias,channels_last
    last_112_16_96       conv2d,n1c16i112f96k1,bias,relu6,channels_last
""")

TABLES: dict[str, dict[str, Any]] = {"tuned": LAYERS, "more": MORE_LAYERS, "other": OTHER_LAYERS, "survey": SURVEY_LAYERS}


def find(text: str) -> tuple[str, AnyProblem]:
    """A name and its problem, from a name in the tables or a problem's text, which is its own name."""
    known = {**LAYERS, **MORE_LAYERS, **OTHER_LAYERS, **SURVEY_LAYERS}
    if text in known:
        return text, known[text]
    if "," not in text:
        like = difflib.get_close_matches(text, known, 5, 0) if text else list(LAYERS)
        raise ValueError(f"layer: got {text!r}, expected a problem's text or the name of a layer, such as {', '.join(like)}")
    problem = Problem.parse(text)
    if not problem.x_shape[0]:
        raise ValueError(f"layer: got {text!r}, a batch of 0, expected images to be timed")
    return str(problem), problem


def asking(problem: AnyProblem, algorithm: str) -> AnyProblem:
    """The same problem, computed by an algorithm.

    Raises
    ------
    ValueError
        For a gradient with respect to weights, whose functions let nobody choose.

    Examples
    --------
    >>> print(asking(LAYERS["pw_28_192_32"], "tiled"))
    conv2d,n1c192i28x28f32k1x1,bias,relu,tiled
    """
    if isinstance(problem, SeparableProblem):
        return SeparableProblem(*(replace(part, algorithm=algorithm) for part in parts(problem)))
    if problem.operation == "weights" and algorithm != problem.algorithm:
        raise ValueError(f"algorithm: got {algorithm!r}, and gradients with respect to weights let nobody choose")
    return replace(problem, algorithm=algorithm)


def layer(problem: AnyProblem, *arrays: Array | None) -> Any:
    """The layer object that computes a problem, made of weights and biases.

    Parameters
    ----------
    problem : Problem or SeparableProblem
        A convolution or a transposed one.
    *arrays : ndarray or None
        weight, bias; of a separable problem depthwise_weight, pointwise_weight, depthwise_bias, pointwise_bias.

    Examples
    --------
    >>> problem = LAYERS["pw_28_192_32"]
    >>> layer(problem, np.ones((32, 192, 1, 1), np.float32), np.ones(32, np.float32))
    PointwiseConv2d(weight (32, 192, 1, 1), bias (32,), float32)
    """
    if isinstance(problem, SeparableProblem):
        activation = problem.depthwise.activation
        keywords = _keywords(problem.depthwise, "stride padding dilation padding_mode") | _keywords(problem.pointwise, "")
        return fc.SeparableConv2d(*arrays, depthwise_activation=activation, **keywords)
    if problem.operation == "transposed":
        kind = {1: fc.ConvTranspose1d, 2: fc.ConvTranspose2d, 3: fc.ConvTranspose3d}[problem.dimensions]
        return kind(*arrays, **_keywords(problem, "stride padding output_padding groups dilation"))
    if problem.dimensions == 2 and problem.kind == "pointwise":
        return fc.PointwiseConv2d(*arrays, **_keywords(problem, "stride padding_mode"))
    if problem.dimensions == 2 and problem.kind == "depthwise":
        return fc.DepthwiseConv2d(*arrays, **_keywords(problem, "stride padding dilation padding_mode"))
    general = {1: fc.Conv1d, 2: fc.Conv2d, 3: fc.Conv3d}[problem.dimensions]
    return general(*arrays, **_keywords(problem, "stride padding dilation groups padding_mode"))


def _keywords(problem: Problem, names: str) -> dict[str, Any]:
    """These of a layer's arguments, and those that all layers take."""
    everywhere = ["activation", "data_format", "algorithm", "precision"]
    return {name: getattr(problem, "pads" if name == "padding" else name) for name in names.split() + everywhere}


@dataclass(frozen=True)
class Convolution:
    """One convolution with its numbers; of a gradient with respect to weights, `weight` is the gradient of the result."""

    problem: Problem
    weight: Array
    bias: Array | None
    residual: Array | None


@dataclass(frozen=True)
class Segment:
    """Layers of which each takes the result of the one before, and the first one's input.

    A layer is a tuple of convolutions: of one, or of a separable layer's two.
    """

    x: Array
    layers: tuple[tuple[Convolution, ...], ...]

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        """Of all layers, in order."""
        return sum(self.layers, ())


def parts(problem: AnyProblem) -> tuple[Problem, ...]:
    """The convolutions that make up a layer: itself, or a separable layer's two."""
    return (problem.depthwise, problem.pointwise) if isinstance(problem, SeparableProblem) else (problem,)


def segment(problems: Sequence[AnyProblem], rng: np.random.Generator | None = None) -> Segment:
    """Layers that follow one another, filled with random numbers that keep the input's scale.

    Examples
    --------
    >>> filled = segment([MORE_LAYERS["sep_28_256"]])
    >>> filled.x.shape, [c.weight.shape for c in filled.convolutions]
    ((1, 256, 28, 28), [(256, 1, 3, 3), (256, 256, 1, 1)])
    """
    rng = np.random.default_rng(0) if rng is None else rng

    def random(shape: tuple[int, ...], scale: float = 1.0) -> Array:
        return (scale * rng.standard_normal(shape, np.float32)).astype(problems[0].dtype)

    def convolution(problem: Problem) -> Convolution:
        if problem.operation == "weights":
            return Convolution(problem, random(problem.out_shape), None, None)
        return Convolution(
            problem,
            random(problem.weight_shape, float(np.prod(problem.weight_shape[1:])) ** -0.5),
            None if problem.bias_shape is None else random(problem.bias_shape),
            random(problem.out_shape) if problem.residual else None,
        )

    x = aligned_copy(random(problems[0].x_shape))  # on a cache line, as every library's own results lie; for all of them
    return Segment(x, tuple(tuple(map(convolution, parts(problem))) for problem in problems))


def step(convolutions: Sequence[Convolution]) -> Callable[..., Array]:
    """A layer as a function of x, and of out where it takes one."""
    problem = convolutions[-1].problem
    if problem.operation == "weights":
        size, gradient = problem.weight_shape, convolutions[-1].weight
        geometry = (problem.stride, problem.pads, problem.dilation, problem.groups)
        function = getattr(fc.grad, f"conv{problem.dimensions}d_weight")
        return lambda x: function(x, size, gradient, *geometry, data_format=problem.data_format)
    whole = SeparableProblem(convolutions[0].problem, problem) if len(convolutions) == 2 else problem
    made = layer(whole, *(c.weight for c in convolutions), *(c.bias for c in convolutions))
    residual = convolutions[-1].residual
    return made if residual is None else partial(made, residual=residual)


@dataclass(frozen=True)
class Case:
    """A problem with arrays of random numbers: calling it computes the problem once."""

    problem: AnyProblem
    function: Callable[..., Array]
    arguments: tuple[Array, ...]

    def __call__(self) -> Array:
        return self.function(*self.arguments)


def case(problem: AnyProblem) -> Case:
    """A problem as a call that can be timed.

    Layers write into an `out` of their own; a gradient with respect to weights, which has none, makes its result anew.
    """
    filled = segment([problem])
    [convolutions] = filled.layers
    out = () if problem.kind == "weights" else (np.empty(problem.out_shape, problem.dtype),)
    return Case(problem, step(convolutions), (filled.x, *out))
