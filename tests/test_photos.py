"The packaged photographs"
from pathlib import Path
import cv2, numpy as np, pytest
import clsnb

photos = Path(clsnb.__file__).parent/'photos'

def thumbnail(file):
    "A small grey picture with mean 0 and norm 1, so that the product of two is their correlation"
    small = cv2.resize(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE), (16, 16), interpolation=cv2.INTER_AREA).astype(float)
    small -= small.mean()
    return (small/np.linalg.norm(small)).ravel()

@pytest.mark.parametrize('mirrored', [False, True])
def test_no_packaged_photograph_is_in_train_and_val(mirrored):
    train, val = (
        [line.split()[0] for line in (photos/f'{split}.txt').read_text().splitlines()] for split in ('train', 'val')
    )
    assert len(set(train)) == 130 and len(set(val)) == 54 and not set(train) & set(val)
    known = np.stack([thumbnail(photos/name) for name in train])
    if mirrored: known = known.reshape(-1, 16, 16)[:, :, ::-1].reshape(-1, 256)
    for name in val:
        alike = known @ thumbnail(photos/name)
        assert alike.max() < .95, f'{name} is {train[alike.argmax()]}'
