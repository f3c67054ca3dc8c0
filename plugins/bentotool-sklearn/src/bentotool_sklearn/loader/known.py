"""Which types and functions a skops file may hold; standard library only."""

from __future__ import annotations

from .schema import nodes

# Nodes of the format that make data, or an object of a type that is checked. Not among them: functions, methods,
# partials, operators and constructors of arbitrary arguments, with which a file of "safe" types can call what it
# likes.
SAFE_NODES = frozenset(
    {
        "BytearrayNode", "BytesNode", "CachedNode", "DTypeNode", "DatetimeTimedeltaNode", "DefaultDictNode", "DictNode",
        "JsonNode",
        "ListNode", "LossNode", "MaskedArrayNode", "NdArrayNode", "ObjectNode", "RandomGeneratorNode",
        "RandomStateNode", "SetNode", "SliceNode", "SparseMatrixNode", "TreeNode", "TupleNode", "TypeNode",
        "_DictWithDeprecatedKeysNode",
    }
)  # fmt: skip
SAFE_MODULES = ("sklearn", "numpy", "scipy")
SAFE_BUILTINS = frozenset(
    {
        "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "set", "slice", "str",
        "tuple", "NoneType",
    }
)  # fmt: skip
SAFE_OTHERS = frozenset(
    {"collections.OrderedDict", "collections.defaultdict", "datetime.datetime", "datetime.timedelta"}
)

# Types whose objects hold nothing but numbers, text, and objects that are looked at themselves: plain Python classes
# of scikit-learn that skops leaves to its caller.
PLAIN = {
    "sklearn._loss.loss": "HalfTweedieLoss HalfTweedieLossIdentity",
    "sklearn.calibration": "_CalibratedClassifier _SigmoidCalibration _TemperatureScaling",
    "sklearn.gaussian_process._gpc": "_BinaryGaussianProcessClassifierLaplace",
    "sklearn.gaussian_process.kernels": "CompoundKernel ConstantKernel DotProduct ExpSineSquared Exponentiation "
    "Hyperparameter Matern Product RBF RationalQuadratic Sum WhiteKernel",
    "sklearn.metrics._scorer": "_CurveScorer _MultimetricScorer _PassthroughScorer _Scorer",
    "sklearn.model_selection._search_successive_halving": "HalvingGridSearchCV HalvingRandomSearchCV",
    "sklearn.model_selection._split": "GroupKFold GroupShuffleSplit KFold LeaveOneGroupOut LeaveOneOut LeavePGroupsOut "
    "LeavePOut RepeatedKFold RepeatedStratifiedKFold ShuffleSplit StratifiedGroupKFold StratifiedKFold "
    "StratifiedShuffleSplit TimeSeriesSplit",
    "sklearn.multiclass": "_ConstantPredictor",
    "sklearn.neural_network._stochastic_optimizers": "AdamOptimizer SGDOptimizer",
    "sklearn.utils._metadata_requests": "MetadataRequest MethodMetadataRequest",
}
# Functions that compute, whatever they are called with; by the name skops gives them.
FUNCTIONS = {
    "numpy": "absolute amax amin cbrt ceil clip cos exp exp2 expm1 floor log log10 log1p log2 max mean median min "
    "negative reciprocal sign sin sqrt square std sum tan tanh var",
    "sklearn.feature_selection._mutual_info": "mutual_info_classif mutual_info_regression",
    "sklearn.feature_selection._univariate_selection": "chi2 f_classif f_regression r_regression",
    "sklearn.metrics._classification": "accuracy_score balanced_accuracy_score brier_score_loss d2_brier_score "
    "d2_log_loss_score f1_score fbeta_score jaccard_score log_loss matthews_corrcoef precision_score recall_score",
    "sklearn.metrics._ranking": "average_precision_score roc_auc_score top_k_accuracy_score",
    "sklearn.metrics._regression": "d2_absolute_error_score explained_variance_score max_error mean_absolute_error "
    "mean_absolute_percentage_error mean_gamma_deviance mean_poisson_deviance mean_squared_error "
    "mean_squared_log_error median_absolute_error r2_score root_mean_squared_error root_mean_squared_log_error",
}
PLAIN_TYPES = frozenset(f"{module}.{name}" for module, names in PLAIN.items() for name in names.split())
FUNCTION_NAMES = frozenset(f"{module}.{name}" for module, names in FUNCTIONS.items() for name in names.split())
TREE = "sklearn.tree._tree.Tree"
PREDICTOR = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"
NEIGHBOURS = tuple(f"sklearn.neighbors.{name}" for name in ("_kd_tree.KDTree", "_ball_tree.BallTree"))
NEIGHBOURS += tuple(f"{name}{bits}" for name in NEIGHBOURS for bits in (32, 64))
METRICS = frozenset(
    f"sklearn.metrics._dist_metrics.{name}Distance{bits}"
    for name in ("Euclidean", "Manhattan", "Chebyshev")
    for bits in ("", "32", "64")
)


def unknown_types(schema: object) -> list[str]:
    """Names of the types and constructions in an object tree that are not known to be safe."""
    unknown = set()
    for node in nodes(schema):
        module, name = str(node.get("__module__", "")), str(node.get("__class__", ""))
        kind = str(node.get("__loader__", ""))
        if kind == "FunctionNode" and f"{module}.{name}" in FUNCTION_NAMES:
            continue
        if kind not in SAFE_NODES:
            unknown.add(f"{module}.{name} ({kind})")
        elif not _safe(module, name):
            unknown.add(f"{module}.{name}")
    return sorted(unknown)


def _safe(module: str, name: str) -> bool:
    if module == "builtins":
        return name in SAFE_BUILTINS
    return module.partition(".")[0] in SAFE_MODULES or f"{module}.{name}" in SAFE_OTHERS
