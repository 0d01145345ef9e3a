"Lamb, beside numbers measured with MMClassification 0.25"
import json
from pathlib import Path

import numpy as np, pytest, torch
from clsnb.core.registry import OPTIMIZERS

facts = json.loads((Path(__file__).parent/'data/lamb.json').read_text())
shapes = dict(w=(4, 3), b=(4,), x=(16, 3), y=(16, 4))

@pytest.mark.parametrize(
    'run', facts['runs'], ids=lambda o: ' '.join(f'{k}={v}' for k,v in o['args'].items())
)
def test_lamb(run):
    w,b,x,y = (
        torch.tensor(facts['inputs'][k]).reshape(s)
        for k,s in shapes.items()
    )
    w,b,kw = torch.nn.Parameter(w),torch.nn.Parameter(.1*b),dict(run['args'])
    split = kw.pop('split', False)
    opt = OPTIMIZERS.get('Lamb')(
        [dict(params=[w]), dict(params=[b], weight_decay=0.)] if split else [w, b],
        **kw,
    )
    for step in run['steps']:
        loss = (x@w.T+b-y).square().mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        np.testing.assert_allclose(float(loss.detach()), step['loss'], rtol=1e-5)
        for mine,theirs in ((w, step['w']), (b, step['b'])):
            np.testing.assert_allclose(mine.detach().flatten(), theirs, rtol=1e-4, atol=2e-6)
