"""The operator table: for each operator its cost, whether it is a weighted layer, and how it spreads positions.

A new operator is a new row. An operator without a row makes an audit partial and is named; it never counts as zero.
"""

from __future__ import annotations

from resattn.graph.graph import INPUT, OVERWRITE, Graph, Op
from resattn.rules import costs, intervals, spreads
from resattn.rules.rule import Rule, Rules, is_layer
from resattn.rules.weights import Weights


def _matmul(first: str, second: str) -> Rule:
    return Rule(
        "matmul", spreads.matmul(first, second), costs.matmul_macs(first, second), costs.reads_params(first, second),
        matrices=(first, second),
    )  # fmt: skip


# The names of operators, of torch where no library is named, and their row.
ROWS: tuple[tuple[str, Rule], ...] = (
    (
        "convolution conv1d conv2d conv3d _convolution mkldnn_convolution cudnn_convolution miopen_convolution",
        Rule("convolution", spreads.convolution, costs.convolution_macs, costs.is_weighted_convolution),
    ),
    ("mm", _matmul("self", "mat2")),
    ("bmm", _matmul("self", "mat2")),
    ("mv", _matmul("self", "vec")),
    ("dot", _matmul("self", "tensor")),
    ("vdot", _matmul("self", "other")),
    ("addmm", _matmul("mat1", "mat2")),
    ("_addmm_activation", _matmul("mat1", "mat2")),
    ("addmv", _matmul("mat", "vec")),
    ("baddbmm addbmm", _matmul("batch1", "batch2")),
    (
        "_grouped_mm",
        Rule(
            "matmul", spreads.chosen, costs.grouped_macs, costs.reads_params("self", "mat2"), matrices=("self", "mat2")
        ),
    ),
    ("_trilinear", Rule("matmul", spreads.everywhere, costs.bilinear_macs, costs.reads_params("i1", "i2", "i3"))),
    (
        "mkldnn_rnn_layer",
        Rule("matmul", spreads.everywhere, costs.recurrent_macs, costs.reads_params("weight0", "weight1")),
    ),
    (
        "torchvision.deform_conv2d",
        Rule("convolution", spreads.chosen, costs.deformed_macs, costs.is_weighted_convolution),
    ),
    ("linear", Rule("matmul", spreads.linear, costs.linear_macs, costs.reads_params("weight"), matrices=("weight",))),
    (
        "scaled_dot_product_attention _scaled_dot_product_flash_attention "
        "_scaled_dot_product_efficient_attention _scaled_dot_product_flash_attention_for_cpu "
        "_scaled_dot_product_cudnn_attention _scaled_dot_product_fused_attention_overrideable "
        "_scaled_dot_product_attention_math",
        Rule("attention", spreads.attention, costs.attention_macs),
    ),
    (
        "native_batch_norm batch_norm cudnn_batch_norm _native_batch_norm_legit_no_training miopen_batch_norm "
        "_native_batch_norm_legit _batch_norm_with_update _batch_norm_no_update instance_norm",
        Rule("norm", spreads.batch_norm),
    ),
    ("native_layer_norm layer_norm rms_norm _fused_rms_norm", Rule("norm", spreads.layer_norm)),
    ("native_group_norm group_norm", Rule("norm", spreads.group_norm)),
    ("max_pool1d avg_pool1d max_pool1d_with_indices", Rule("pool", spreads.pool(1))),
    ("max_pool2d max_pool2d_with_indices avg_pool2d mkldnn_max_pool2d", Rule("pool", spreads.pool(2))),
    ("max_pool3d max_pool3d_with_indices avg_pool3d", Rule("pool", spreads.pool(3))),
    ("fractional_max_pool2d fractional_max_pool3d", Rule("pool", spreads.chosen)),
    ("max_unpool2d max_unpool3d", Rule("resize", spreads.chosen)),
    (
        "adaptive_avg_pool1d _adaptive_avg_pool2d adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool3d "
        "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d",
        Rule("pool", spreads.adaptive),
    ),
    ("upsample_linear1d", Rule("resize", spreads.resize(1, intervals.linear_resize, is_aligned=True))),
    ("upsample_bilinear2d", Rule("resize", spreads.resize(2, intervals.linear_resize, is_aligned=True))),
    ("upsample_trilinear3d", Rule("resize", spreads.resize(3, intervals.linear_resize, is_aligned=True))),
    ("upsample_bicubic2d", Rule("resize", spreads.resize(2, intervals.cubic_resize, is_aligned=True))),
    ("_upsample_bilinear2d_aa", Rule("resize", spreads.resize(2, intervals.smoothed_resize, 1, is_aligned=True))),
    ("_upsample_bicubic2d_aa", Rule("resize", spreads.resize(2, intervals.smoothed_resize, 2, is_aligned=True))),
    ("upsample_nearest1d", Rule("resize", spreads.resize(1, intervals.nearest_resize, False))),
    ("upsample_nearest2d", Rule("resize", spreads.resize(2, intervals.nearest_resize, False))),
    ("upsample_nearest3d", Rule("resize", spreads.resize(3, intervals.nearest_resize, False))),
    ("_upsample_nearest_exact1d", Rule("resize", spreads.resize(1, intervals.nearest_resize, True))),
    ("_upsample_nearest_exact2d", Rule("resize", spreads.resize(2, intervals.nearest_resize, True))),
    ("_upsample_nearest_exact3d", Rule("resize", spreads.resize(3, intervals.nearest_resize, True))),
    (
        "constant_pad_nd pad reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d "
        "replication_pad2d replication_pad3d",
        Rule("pad", spreads.padding),
    ),
    (
        "mean sum amax amin max min prod std var std_mean var_mean logsumexp all any _is_all_true _is_any_true "
        "argmax argmin median nanmedian nansum count_nonzero aminmax kthvalue mode",
        Rule("reduce", spreads.reduce),
    ),
    ("_log_softmax log_softmax sort topk argsort", Rule("along", spreads.along)),
    ("_fft_r2c _fft_c2r _fft_c2c", Rule("along", spreads.transformed)),
    ("norm linalg_vector_norm", Rule("reduce", spreads.reduce, flow="vector norm")),
    ("_softmax softmax _safe_softmax", Rule("along", spreads.along, flow="gate")),
    ("cumsum cumprod logcumsumexp cummax cummin", Rule("along", spreads.cumulative)),
    ("cat concat", Rule("join", spreads.join)),
    ("stack", Rule("join", spreads.stack)),
    ("view _unsafe_view reshape _reshape_alias flatten unflatten view_copy squeeze", Rule("view", spreads.reshape)),
    ("permute transpose t swapaxes", Rule("view", spreads.permute)),
    ("unsqueeze", Rule("view", spreads.unsqueeze)),
    ("expand broadcast_to", Rule("view", spreads.pointwise)),
    ("slice narrow", Rule("view", spreads.sliced)),
    ("select", Rule("view", spreads.select)),
    ("split split_with_sizes chunk unsafe_split unsafe_split_with_sizes unsafe_chunk", Rule("view", spreads.narrowed)),
    ("set_", Rule("view")),  # frees a tensor, or takes the memory of another: what it then reads is not followed
    ("unbind", Rule("view", spreads.unbound)),
    ("repeat", Rule("view", spreads.repeat)),
    ("rot90", Rule("view", spreads.rotated)),
    ("diagonal", Rule("view", spreads.diagonal)),
    ("as_strided", Rule("view", spreads.strided)),
    ("unfold", Rule("view", spreads.unfold)),
    ("tril triu", Rule("pointwise", spreads.triangle)),
    ("flip", Rule("view", spreads.flip)),
    ("roll", Rule("view", spreads.roll)),
    ("pixel_shuffle pixel_unshuffle", Rule("view", spreads.pixel_shuffle)),
    ("channel_shuffle native_channel_shuffle", Rule("view", spreads.channel_shuffle)),
    ("im2col", Rule("view", spreads.im2col)),
    ("col2im", Rule("pointwise", spreads.col2im)),  # it sums where patches overlap
    ("index index_select _unsafe_index", Rule("index", spreads.index, indices=("index", "indices"))),
    ("embedding", Rule("index", spreads.embedding)),
    ("gather", Rule("index", spreads.gather)),
    ("scatter scatter_add scatter_reduce", Rule("index", spreads.scatter)),
    (
        "index_put _unsafe_index_put index_add index_copy index_fill",
        Rule("index", spreads.put, indices=("index", "indices")),
    ),
    ("take masked_select masked_scatter", Rule("index", spreads.chosen)),
    (
        "nonzero _unique2 unique_dim unique_consecutive bincount multinomial put torchvision.nms torchvision.roi_align "
        "torchvision.roi_pool torchvision.ps_roi_align torchvision.ps_roi_pool repeat_interleave",
        Rule("index", spreads.chosen),
    ),
    ("_pack_padded_sequence _embedding_bag diag_embed block_diag unfold_backward", Rule("index", spreads.everywhere)),
    (
        "histc renorm linalg_cross _cdist_forward _euclidean_dist _pdist_forward _ctc_loss nll_loss_forward "
        "nll_loss2d_forward _linalg_svd _linalg_eigh _linalg_det linalg_inv_ex _linalg_solve_ex linalg_cholesky_ex "
        "linalg_lu linalg_qr linalg_matrix_exp linalg_solve_triangular triangular_solve cholesky_solve",
        Rule("reduce", spreads.everywhere),
    ),
    (
        "mse_loss smooth_l1_loss huber_loss binary_cross_entropy binary_cross_entropy_with_logits soft_margin_loss",
        Rule("reduce", spreads.loss),
    ),
    ("view_as_complex view_as_real", Rule("view", spreads.pairs)),
    ("grid_sampler_2d grid_sampler_3d", Rule("index", spreads.sampled)),
    ("affine_grid_generator", Rule("index", spreads.everywhere)),
    (
        # arithmetic
        "sub rsub addcdiv pow sqrt rsqrt square reciprocal neg abs sign exp exp2 expm1 log "
        "log2 log10 log1p sin cos tan atan atan2 asin acos floor ceil round trunc frac remainder fmod "
        "floor_divide maximum minimum fmax fmin clamp_min clamp_max where masked_fill "
        "eq ne lt le gt ge logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not "
        "isnan isinf isfinite nan_to_num erf erfc erfinv sgn hypot logaddexp logaddexp2 xlogy sinc copysign "
        "heaviside logit i0 lgamma digamma bucketize searchsorted isin __lshift__ __rshift__ complex angle polar "
        "special_erfcx special_i0e special_i1 special_i1e special_bessel_j0 special_bessel_j1 special_ndtri "
        "special_log_ndtr special_entr special_zeta polygamma gcd lcm fake_quantize_per_tensor_affine_cachemask "
        "fake_quantize_per_channel_affine_cachemask "
        # activations
        "relu relu6 leaky_relu elu selu celu gelu silu mish log_sigmoid_forward "
        "hardswish hardshrink softshrink softplus threshold _prelu_kernel rrelu_with_noise "
        "native_dropout dropout sinh cosh asinh acosh atanh "
        # the same values elsewhere
        "clone contiguous _to_copy to alias detach lift_fresh resolve_conj resolve_neg "
        "_conj view_as",
        Rule("pointwise", spreads.pointwise),
    ),
    ("add", Rule("pointwise", spreads.pointwise, flow="sum")),
    ("mul", Rule("pointwise", spreads.pointwise, flow="product", factors=("self", "other"))),
    ("addcmul", Rule("pointwise", spreads.pointwise, flow="product", factors=("tensor1", "tensor2"))),
    ("lerp", Rule("pointwise", spreads.pointwise, flow="product", factors=("weight", "self", "end"))),
    ("div", Rule("pointwise", spreads.pointwise, flow="quotient")),
    ("sigmoid hardsigmoid hardtanh clamp", Rule("pointwise", spreads.pointwise, flow="gate")),
    ("tanh", Rule("pointwise", spreads.pointwise, flow="signed gate")),
    (
        "copy fill zero normal uniform random bernoulli exponential",
        Rule("pointwise", spreads.pointwise, is_replacing=True),
    ),
    (
        "zeros_like ones_like empty_like full_like rand_like randn_like randint_like new_zeros new_ones new_full "
        "new_empty new_empty_strided sym_size sym_numel _shape_as_tensor",
        Rule("shape"),
    ),
    ("glu", Rule("pointwise", spreads.halves)),
)

RULES: Rules = {
    INPUT: Rule("input", spreads.of_input),
    OVERWRITE: Rule("view", spreads.overwrite),
    **{name if "." in name else f"aten.{name}": rule for names, rule in ROWS for name in names.split()},
}


def layer_flags(graph: Graph) -> list[bool]:
    """For each operator whether it is a weighted layer: a convolution, or a matrix product with parameters, which data
    may select or scale.
    """
    flags: list[bool] = []
    weights = Weights(graph, flags)
    for op in graph.ops:
        matrices = op.rule.matrices if op.rule is not None else ()
        flags.append(is_layer(op) or any(weights.is_matrix(op.arguments[name]) for name in matrices))
    return flags


def constant_layers(graph: Graph) -> list[Op]:
    """The weighted layers that depend on no input. A product that only measures the matrix of another layer, for its
    spectral norm, is none.
    """
    measuring: set[int] = set()
    met: set[int] = set()  # what data meets otherwise than as a factor of the matrix that it was made of
    for start, matrix in {(o.constant, o.params) for op in graph.ops for o in op.operands if o.constant}:
        reached = {start}
        for op in reversed(graph.constants[:-start]):
            if op.index in reached:
                reached.update(o.constant for o in op.operands)
                is_factor = bool(op.params) and set(matrix).issuperset(op.params)
                (measuring if is_factor else met).add(op.index)
    return [op for op in graph.constants if is_layer(op) and op.index not in measuring - met]


def unknown_ops(graph: Graph) -> list[Op]:
    return [op for op in (*graph.ops, *graph.constants) if op.rule is None]
