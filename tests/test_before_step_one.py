"What can be known from a config and a few samples is told by `check` and by `fit` before the first step"
import json
from pathlib import Path

import pytest

from clsnb.apis.fit import fit, val_phase_data
from clsnb.config.config import Config
from clsnb.config.files import list_configs
from clsnb.core.errors import ConfigError

PHOTOS, DIGITS = 'resnet18-tiny_1xb16_photos', 'lenet5_1xb32_digits'
QUICK = {'data.workers_per_gpu': 0, 'log_level': 'ERROR', 'runner.max_epochs': 1, 'results': False}

def rows(folder, mode):
    "Lines of a run's JSON logs"
    lines = [line for path in sorted(Path(folder).glob('*.log.json')) for line in path.read_text().splitlines()]
    return [row for row in map(json.loads, lines) if row.get('mode')==mode]

# ---- The val phase of a workflow

@pytest.mark.parametrize('name', [PHOTOS, DIGITS])
@pytest.mark.parametrize('workflow', [[('train', 1), ('val', 1)], [('val', 1), ('train', 1)],
                                      [('train', 1), ('val', 1), ('train', 1)]])
def test_a_workflow_with_val_gives_a_validation_loss(name, workflow, tmp_path):
    fit(name, tmp_path, QUICK | {'runner.max_epochs': 2, 'workflow': workflow, 'data.samples_per_gpu': 64})
    losses = [row['loss'] for row in rows(tmp_path, 'val') if 'loss' in row and 'accuracy_top-1' not in row]
    assert losses and all(loss>0 for loss in losses)

def test_every_packaged_config_has_labels_in_its_val_phase():
    names = list_configs()
    assert len(names)>200
    for name in names:
        cfg = Config.fromfile(name)
        data = val_phase_data(cfg)
        while 'dataset' in data: data = data['dataset']
        assert 'gt_label' in data['pipeline'][-1]['keys'], name
        assert {**data, 'pipeline': 0}=={**cfg.facts.split('val'), 'pipeline': 0}, name

def test_a_workflow_with_val_needs_data(tmp_path):
    with pytest.raises(ConfigError, match='data.val'):
        fit(DIGITS, tmp_path, QUICK | {'workflow': [('train', 1), ('val', 1)], 'data.val': None})
