# SPDX-License-Identifier: BSD-3-Clause
"""Names of Keras's modules that this package does not have, and what to write instead.

`fastrnn.keras` answers for them with this table. Names that it has are not in here.
"""

from collections.abc import Mapping

_CONVOLUTION = "images and filters are not what this package is about; use PyTorch"
_MERGE = (
    "keras.layers.Add, Concatenate, Multiply and others in a fastrnn.Functional, or a "
    "class that derives from fastrnn.Model"
)
_CELL = (
    "LSTM, GRU and SimpleRNN are whole layers; layer.stream() runs them step by step"
)
_TEXT = "keras.preprocessing.text.Tokenizer, or fastrnn.WordTokenizer"
_NOISE = "Dropout is the noise that there is; or change x in a generator for fit"
_OWN_LAYER = "derive from fastrnn.Module and write forward and backward"
_BY_NAME = "give compile its name, such as loss='mean_squared_error'"
_METRIC = "a function (pred, target) -> number is a metric"
_LOSS = "a function (pred, target) -> (loss, dpred) is a loss"
_ADAM = "Adam, AdamW, RMSprop, SGD and Adagrad are the optimisers"
_RATE = (
    "callbacks set the rate: fastrnn.schedules.StepLR, CosineLR, WarmUp, or "
    "keras.callbacks.LearningRateScheduler(function)"
)
_INIT = "init= of layers takes 'keras', 'torch' and functions of fastrnn.init"
_DECAY = "weights are decayed by the optimiser: AdamW(weight_decay=)"
_DATA = "fastrnn downloads no data; read your file with pandas or NumPy"
_ARRAYS = "arrays are NumPy's: use numpy"
_CLASSES = "a model is saved by its classes: load_model(path, custom_layers={...})"

_LAYERS = {
    "Attention": "fastrnn.Attention(query_size, key_size) is Luong's and Bahdanau's",
    "AdditiveAttention": "fastrnn.Attention(..., score='additive') is Bahdanau's",
    "MultiHeadAttention": "fastrnn.Attention has one head",
    "GroupQueryAttention": "fastrnn.Attention has one head",
    "Lambda": _OWN_LAYER,
    "Layer": _OWN_LAYER,
    "Wrapper": _OWN_LAYER,
    "LeakyReLU": "keras.layers.ReLU, or Activation('elu')",
    "PReLU": "keras.layers.ReLU, or Activation('elu')",
    "ELU": "Activation('elu')",
    "RNN": f"{_CELL}; SimpleRNN is Elman's",
    "StackedRNNCells": "LSTM(input_size, hidden_size, num_layers) stacks layers",
    "Normalization": "scale x with scikit-learn's StandardScaler",
    "Rescaling": "scale x itself",
    "Identity": "leave it out",
    "TextVectorization": _TEXT,
    "StringLookup": _TEXT,
    "IntegerLookup": _TEXT,
    "ActivityRegularization": _DECAY,
    "RMSNormalization": "LayerNormalization, or fastrnn.LayerNorm(size, bias=False)",
    "GroupNormalization": "LayerNormalization",
    "UnitNormalization": "LayerNormalization",
    "SpectralNormalization": "fit(clip_norm=) keeps gradients in bounds",
    "TorchModuleWrapper": "fastrnn.torch has layers for PyTorch's models",
    "ReversibleEmbedding": "Embedding, and a Dense for the way back",
    "EinsumDense": "Dense, which maps the last axis",
}
_GROUPS = {
    _CELL: "LSTMCell GRUCell SimpleRNNCell",
    _NOISE: "GaussianNoise GaussianDropout AlphaDropout",
    _MERGE: "Dot add average concatenate dot maximum minimum multiply subtract",
    _CONVOLUTION: """AdaptiveAveragePooling1D AdaptiveAveragePooling2D
        AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D
        AdaptiveMaxPooling3D AugMix AutoContrast AveragePooling2D AveragePooling3D
        AvgPool2D AvgPool3D CenterCrop ContrastLimitedAdaptiveHistogramEqualization
        Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D
        ConvLSTM2D ConvLSTM3D Convolution1DTranspose Convolution2D
        Convolution2DTranspose Convolution3D Convolution3DTranspose Cropping1D
        Cropping2D Cropping3D CutMix DepthwiseConv1D DepthwiseConv2D Equalization
        GlobalAveragePooling2D GlobalAveragePooling3D GlobalAvgPool2D GlobalAvgPool3D
        GlobalMaxPool2D GlobalMaxPool3D GlobalMaxPooling2D GlobalMaxPooling3D
        MaxNumBoundingBoxes MaxPool2D MaxPool3D MaxPooling2D MaxPooling3D
        MelSpectrogram MixUp RandAugment RandomBrightness RandomColorDegeneration
        RandomColorJitter RandomContrast RandomCrop RandomElasticTransform
        RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue
        RandomInvert RandomPerspective RandomPosterization RandomRotation
        RandomSaturation RandomSharpness RandomShear RandomTranslation RandomZoom
        Resizing STFTSpectrogram SeparableConv1D SeparableConv2D SeparableConvolution1D
        SeparableConvolution2D Solarization SpatialDropout2D SpatialDropout3D
        UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D
        ZeroPadding3D""",
    "make features with pandas or scikit-learn": """CategoryEncoding Discretization
        HashedCrossing Hashing Pipeline""",
    _CLASSES: "deserialize serialize InputSpec FlaxLayer JaxLayer TFSMLayer",
}


def _spread(groups: Mapping[str, str]) -> dict[str, str]:
    return {name: text for text, names in groups.items() for name in names.split()}


NAMES: dict[str, dict[str, str]] = {
    "layers": _spread(_GROUPS) | _LAYERS,
    "optimizers": _spread(
        {
            _ADAM: """Adadelta Adafactor Adamax Ftrl Lamb Lion LossScaleOptimizer
                MultiOptimizer Muon Nadam OptimizerMap ScheduleFreeAdamW""",
            _RATE: "schedules",
            "keras.optimizers.Adam and the others": "legacy",
            "compile(optimizer='adam') takes the name": "deserialize get serialize",
        }
    ),
    "losses": _spread(
        {
            _LOSS: """BinaryFocalCrossentropy CategoricalFocalCrossentropy
                CategoricalGeneralizedCrossEntropy CategoricalHinge Circle
                CosineSimilarity Dice Hinge KLDivergence Poisson SquaredHinge Tversky
                binary_focal_crossentropy categorical_focal_crossentropy
                categorical_generalized_cross_entropy categorical_hinge circle
                cosine_similarity dice hinge kl_divergence poisson squared_hinge
                tversky""",
            "compile('ctc') and fastrnn.ctc_loss are CTC's loss": "CTC ctc",
            _BY_NAME: """binary_crossentropy categorical_crossentropy huber log_cosh
                mean_absolute_error mean_absolute_percentage_error mean_squared_error
                mean_squared_logarithmic_error sparse_categorical_crossentropy
                deserialize get serialize""",
        }
    ),
    "metrics": _spread(
        {
            _METRIC: """Accuracy BinaryCrossentropy BinaryIoU CategoricalCrossentropy
                CategoricalHinge ConcordanceCorrelation CosineSimilarity F1Score
                FBetaScore FalseNegatives FalsePositives Hinge IoU KLDivergence
                LogCoshError Mean MeanIoU MeanMetricWrapper OneHotIoU OneHotMeanIoU
                PearsonCorrelation Poisson PrecisionAtRecall R2Score RecallAtPrecision
                SensitivityAtSpecificity SparseCategoricalCrossentropy
                SpecificityAtSensitivity SquaredHinge Sum TrueNegatives TruePositives
                binary_focal_crossentropy categorical_focal_crossentropy
                categorical_hinge concordance_correlation hinge huber kl_divergence
                log_cosh pearson_correlation poisson squared_hinge""",
            "give compile its name: metrics=['accuracy']": """binary_accuracy
                binary_crossentropy categorical_accuracy categorical_crossentropy
                mean_absolute_error mean_absolute_percentage_error mean_squared_error
                mean_squared_logarithmic_error sparse_categorical_accuracy
                sparse_categorical_crossentropy sparse_top_k_categorical_accuracy
                top_k_categorical_accuracy deserialize get serialize""",
        }
    ),
    "callbacks": _spread(
        {
            "ModelCheckpoint writes the run, fit(resume=) goes on": """BackupAndRestore
                OrbaxCheckpoint""",
            "CSVLogger writes every epoch's figures": "TensorBoard RemoteMonitor",
            "leave it out: fit raises FloatingPointError at NaN": "TerminateOnNaN",
            "leave it out: fit(verbose=1) shows a bar": "ProgbarLogger",
            "fit(callbacks=) takes a list": "CallbackList",
            "there is no moving average of weights": "SwapEMAWeights",
        }
    ),
    "utils": _spread(
        {
            "fastrnn.windows(series, length, target=)": "timeseries_dataset_from_array",
            "split_by_time, or fit(validation_split=)": "split_dataset",
            "model.summary() prints the layers": "plot_model model_to_dot",
            "leave it out: there is no session": "clear_session get_source_inputs",
            "a class with __getitem__ and __len__ will do": "PyDataset Sequence",
            "scale x with scikit-learn": "normalize FeatureSpace",
            "fit(verbose=0) shows nothing": """disable_interactive_logging
                enable_interactive_logging is_interactive_logging_enabled Progbar""",
            _DATA: """get_file audio_dataset_from_directory array_to_img bounding_boxes
                image_dataset_from_directory img_to_array load_img save_img
                text_dataset_from_directory""",
            _CLASSES: """Config CustomObjectScope custom_object_scope
                deserialize_keras_object get_custom_objects get_registered_name
                get_registered_object register_keras_serializable
                serialize_keras_object""",
            _ARRAYS: """is_keras_tensor pack_x_y_sample_weight standardize_dtype
                unpack_x_y_sample_weight legacy""",
        }
    ),
    "models": {
        "clone_model": "copy.deepcopy(model)",
        "model_from_json": "fastrnn.load_model(path) makes a saved model anew",
        "save_model": "model.save('model.safetensors')",
    },
    "preprocessing": _spread(
        {
            _DATA: "image image_dataset_from_directory text_dataset_from_directory",
            "fastrnn.windows(series, length, target=)": "timeseries_dataset_from_array",
        }
    ),
    "preprocessing.sequence": {
        "TimeseriesGenerator": "fastrnn.windows(series, length, target=)",
        "skipgrams": "make the pairs in NumPy",
        "make_sampling_table": "make the pairs in NumPy",
    },
    "preprocessing.text": {
        "text_to_word_sequence": "Tokenizer does so; or fastrnn.WordTokenizer().split",
        "one_hot": "Tokenizer().texts_to_sequences",
        "hashing_trick": "Tokenizer().texts_to_sequences",
        "tokenizer_from_json": "pickle a Tokenizer; fastrnn.WordTokenizer has save",
    },
    "": _spread(
        {
            "give an activation by its name, such as 'relu'": "activations",
            _INIT: "initializers Initializer",
            _DECAY: "regularizers Regularizer",
            "set layer.parameters in a callback": "constraints",
            _DATA: "datasets",
            "there are no trained models": "applications",
            _ARRAYS: """backend ops KerasTensor Variable random Operation Function
                RematScope StatelessScope SymbolicScope name_scope remat tree""",
            _OWN_LAYER: "Layer InputSpec",
            "compile(..., compute='bfloat16') says how products are computed": """
                mixed_precision dtype_policies DTypePolicy FloatDTypePolicy""",
            "fastrnn.quantize(model, 'int8')": "Quantizer quantizers",
            "everything runs on this machine's CPU": "device distribution",
            "set_num_threads is of fastrnn": "config",
            "fastrnn.onnx.save writes models for others": "export distillation",
            "model.save(path) and fastrnn.load_model": "saving legacy src",
            "History.plot draws a run": "visualization",
            "fastrnn.sklearn has estimators": "wrappers",
            "it is fastrnn's: fastrnn.__version__": "version",
        }
    ),
}


# Attributes and methods of Keras's models.
ATTRIBUTES = {
    "call": "forward",
    "compute_loss": "loss",
    "count_params": "flat_parameters.size",
    "evaluate_generator": "evaluate",
    "fit_generator": "fit",
    "from_config": "fastrnn.load_model",
    "get_config": "save, which writes layers and their arguments",
    "get_layer": "model[i], or model.layers",
    "load_weights": "load(path)",
    "metrics_names": "metrics, or evaluate(..., return_dict=True)",
    "non_trainable_weights": "trainable, of each layer",
    "pop": "a new Sequential(model.layers[:-1])",
    "predict_classes": "predict(x).argmax(axis=-1), or predict(x) > 0.5",
    "predict_generator": "predict",
    "predict_proba": "predict",
    "quantize": "fastrnn.quantize(model), which gives a copy",
    "reset_metrics": "evaluate, whose figures are of one call",
    "save_weights": "save(path)",
    "to_json": "save",
    "trainable_variables": "parameters",
    "trainable_weights": "parameters",
    "variables": "parameters",
    "weights": "parameters, or get_weights()",
}


def answer_for(name: str) -> str:
    """What to write for a name of Keras's, with a ``;`` before it; empty if unknown.

    Examples
    --------
    >>> answer_for("EarlyStopping")
    ''
    >>> answer_for("TimeseriesGenerator")
    "; of Keras's TimeseriesGenerator: fastrnn.windows(series, length, target=)"
    """
    found = (names[name] for names in NAMES.values() if name in names)
    answer = next(found, "")
    return f"; of Keras's {name}: {answer}" if answer else ""
