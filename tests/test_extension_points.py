"""What a user's own code finds when only its imports are changed: classes of exceptions, methods and tables that a
subclass overrides, first weights."""
import pickle
import pytest
from clsnb.all import BACKBONES, Config, build_backbone
from clsnb.core.errors import CheckpointError, ConfigError, DataError

@pytest.mark.parametrize('error', [ConfigError, DataError])
@pytest.mark.parametrize('kind', [ValueError, TypeError, KeyError, AssertionError])
def test_our_errors_are_also_those_of_python(error, kind):
    with pytest.raises(kind) as found: raise error("'depth' is unknown.")
    assert str(found.value)=="'depth' is unknown." # no quotes around it, as KeyError has
    assert str(pickle.loads(pickle.dumps(found.value)))=="'depth' is unknown."

def test_a_checkpoint_error_is_a_runtime_error(): assert issubclass(CheckpointError, RuntimeError)

@pytest.mark.parametrize('kind,make', [
    (KeyError, lambda: build_backbone(dict(type='ResNett', depth=18))),
    (KeyError, lambda: build_backbone(dict(depth=18))),
    (KeyError, lambda: build_backbone(dict(type='ResNet', depth=19))),
    (TypeError, lambda: build_backbone(dict(type='ResNet', deep=18))),
    (AssertionError, lambda: build_backbone(dict(type='ResNet', depth=18, num_stages=5))),
    (AssertionError, lambda: build_backbone(dict(type='VisionTransformer', arch=dict(embed_dims=8)))),
    (AssertionError, lambda: BACKBONES.get('ResNet')(18, style='tensorflow')),
])
def test_an_error_has_the_class_that_it_has_in_mmcls(kind, make):
    with pytest.raises(kind): make()

def test_an_error_inside_a_config_keeps_its_words(tmp_path):
    (tmp_path/'a.py').write_text("_base_ = ['missing.py']\n")
    with pytest.raises(ConfigError) as found: Config.fromfile(tmp_path/'a.py')
    assert str(found.value).count('cannot be read, ')==0 and 'missing.py' in str(found.value)
