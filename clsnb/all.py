"What a user needs, and nothing heavy: `from clsnb.all import *`"
import importlib as _importlib
import inspect as _inspect
from typing import TYPE_CHECKING as _TYPE_CHECKING

from clsnb.core.errors import CheckpointError, ClsnbError, ConfigError, DataError, DependencyError
from clsnb.core.registry import (
    BACKBONES, CLASSIFIERS, DATASETS, HEADS, HOOKS, LOSSES, MODELS, NECKS, OPTIMIZER_BUILDERS, OPTIMIZERS,
    PIPELINES, RUNNERS, SAMPLERS, SCHEDULES, TRANSFORMS, Registry
)
from clsnb.config.config import Config, ConfigDict, DictAction, copy_config, list_configs
from clsnb.core.checkpoint import read_checkpoint, save_checkpoint
from clsnb.core.load import load_checkpoint, load_weights
from clsnb.core.dist import get_dist_info, init_dist
from clsnb.core.log import get_logger, get_root_logger
from clsnb.core.seed import set_seed
from clsnb.core.trust import trusted
from clsnb.metrics.registry import METRICS, register_metric
from clsnb.models.base import Backbone
from clsnb.models.batch_augs import Augments, build_augment
from clsnb.models.classifier import (
    BaseClassifier, ImageClassifier, build_backbone, build_classifier, build_head, build_loss, build_neck
)
from clsnb.models.freeze import freeze
from clsnb.data.pixels.fast_decode import fast_decode
from clsnb.data.transforms.pipeline import Compose, ImageTransform, build_pipeline, build_transform
from clsnb.data.sets.dataset import BaseDataset
from clsnb.data.sets.folder import CustomDataset, ImageNet
from clsnb.data.looking import plot_classes, plot_sizes, show_batch
from clsnb.data.sets.packaged import Digits, Photos, photo_path, sample_photos
from clsnb.data.feed.loader import build_dataloader
from clsnb.data.sets.tables import CSVDataset
from clsnb.data.verify import verify_dataset, verify_report
from clsnb.data.sets.wrappers import build_dataset, split_dataset
from clsnb.data.journal import Journal
from clsnb.view.images import show_images
from clsnb.train.optim import build_optimizer
from clsnb.train.schedules import Schedule, lr_curve
from clsnb.train.batches import to_device
from clsnb.train.hooks import Hook
from clsnb.train.loop import IterBasedRunner, Runner
from clsnb.apis.scale_lr import lr_scaling
from clsnb.apis.fit import fit, train_model
from clsnb.apis.check import Findings  # gives Config its method check
from clsnb.apis.launch import launch
from clsnb.apis.continue_run import continue_in_background, continue_run
from clsnb.apis.test import multi_gpu_test, single_gpu_test, evaluate_config
from clsnb.apis.eval_metric import analyze_results, eval_metric
from clsnb.apis.open_model import init_model
from clsnb.apis.inference import inference_model, top_classes
from clsnb.apis.picture_scores import predict_scores
from clsnb.apis.predict import predict
from clsnb.apis.features import extract_feat
from clsnb.apis.info import model_info
from clsnb.apis.kfold import kfold
from clsnb.apis.lr_find import lr_find
from clsnb.apis.batch_size import find_batch_size
from clsnb.apis.finetune import finetune, finetune_config
from clsnb.analysis.complexity import complexity
from clsnb.apis.flops import get_flops
from clsnb.apis.download import download_models
from clsnb.apis.doctor import doctor
from clsnb.apis.publish import publish
from clsnb.apis.export import export
from clsnb.compat.migrate import migrate
from clsnb.apis.reparameterize import reparameterize
from clsnb.apis.vis_cam import vis_cam
from clsnb.apis.edited_config import EditedConfig
from clsnb.apis.schedule_source import schedule_plan
from clsnb.analysis.schedule_chart import plot_plan
from clsnb.apis.vis_lr import vis_lr
from clsnb.apis.vis_pipeline import vis_pipeline
from clsnb.runs.folder import Run
from clsnb.runs.results import Results
from clsnb.runs.stop import request_stop
from clsnb.runs.watched import watch_run, watch_runs
from clsnb.analysis.confusion import confusion_matrix, plot_confusion
from clsnb.analysis.mistakes import worst_mistakes
from clsnb.analysis.reliability import plot_reliability, plot_scores
from clsnb.analysis.result_rows import ResultRows, row_table
from clsnb.analysis.class_clusters import class_clusters, cluster_table
from clsnb.analysis.thresholds import best_threshold, class_threshold_table, threshold_table
from clsnb.analysis.embedding import embedding_map
from clsnb.runs.log_table import read_log
from clsnb.runs.logs import plot_curves
from clsnb.analysis.compare import compare
from clsnb.analysis.curves import plot_curve
from clsnb.analysis.run_curves import plot_training
from clsnb.analysis.train_time import cal_train_time
from clsnb.analysis.figures import plot_mistakes, plot_predictions
from clsnb.analysis.cam import draw_cam, plot_cams
from clsnb.analysis.attach import attach
from clsnb.analysis.report import make_report
from clsnb.analysis.show import show_result_pyplot
from clsnb.analysis.zoo_chart import plot_zoo
from clsnb.apis.zoo_card import zoo_card
from clsnb.apis.zoo_latency import measure_zoo
from clsnb.zoo.filtered import filter_zoo
from clsnb.zoo.index import list_models, search_models, zoo


class _Later:
    "A class or function whose module is imported at its first use; it has the signature and documentation of the original"
    def __init__(self, module: str, name: str):
        self._module = module
        self._name = name

    @property
    def _real(self) -> type: return getattr(_importlib.import_module(self._module), self._name)
    @property
    def __signature__(self): return _inspect.signature(self._real)
    @property
    def __doc__(self): return self._real.__doc__
    @property
    def __call__(self): return self._real  # calls it, and notebooks show its signature
    def __getattr__(self, name: str):
        if name.startswith('_'): raise AttributeError(name)
        return getattr(self._real, name)
    def __mro_entries__(self, bases: tuple) -> tuple: return (self._real,)
    def __instancecheck__(self, instance: object) -> bool: return isinstance(instance, self._real)
    def __repr__(self): return f'<{self._module}.{self._name}>'


if _TYPE_CHECKING:
    from clsnb.widgets.cleaner import Cleaner
    from clsnb.widgets.configs import ConfigExplorer
    from clsnb.widgets.explore import explore
    from clsnb.widgets.monitor import TrainingMonitor
    from clsnb.widgets.pipeline import PipelineExplorer
    from clsnb.widgets.results import ResultsExplorer
    from clsnb.widgets.schedule import ScheduleExplorer
    from clsnb.widgets.training import LRExplorer
    from clsnb.widgets.zoo import ZooExplorer
else:
    Cleaner = _Later('clsnb.widgets.cleaner', 'Cleaner')
    ConfigExplorer = _Later('clsnb.widgets.configs', 'ConfigExplorer')
    explore = _Later('clsnb.widgets.explore', 'explore')
    TrainingMonitor = _Later('clsnb.widgets.monitor', 'TrainingMonitor')
    PipelineExplorer = _Later('clsnb.widgets.pipeline', 'PipelineExplorer')
    ResultsExplorer = _Later('clsnb.widgets.results', 'ResultsExplorer')
    ScheduleExplorer = _Later('clsnb.widgets.schedule', 'ScheduleExplorer')
    LRExplorer = _Later('clsnb.widgets.training', 'LRExplorer')
    ZooExplorer = _Later('clsnb.widgets.zoo', 'ZooExplorer')
__all__ = [o for o in dir() if not o.startswith('_')]
