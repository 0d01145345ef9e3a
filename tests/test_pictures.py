"Pictures of every format, mode and orientation: read as every viewer shows them, or refused with a reason"
import io, json, os, signal, struct, subprocess, sys, time, zlib
from pathlib import Path
import cv2, numpy as np, pytest
from PIL import Image, ImageOps, features
from clsnb.core.errors import ConfigError
from clsnb.data.pixels.fast_decode import LoadCrop
from clsnb.data.pixels.heads import picture_head, still_png
from clsnb.data.pixels.loading import BrokenPicture, LoadImageFromFile

backends = 'cv2', 'pillow'
size = 48, 40 # width, height
rows, columns = np.mgrid[:40, :48]
smooth = np.stack([rows*6, columns*5, 255-rows*6], -1).astype(np.uint8) # smooth, so that lossy formats stay close
ramp = np.linspace(0, 1, 1920).reshape(40, 48)
photo = Image.fromarray(smooth)

def saved(image, name, **options):
    stream = io.BytesIO()
    image.save(stream, name, **options)
    return stream.getvalue()
def exif(orientation):
    tags = Image.Exif()
    tags[0x112] = orientation
    return tags
def load(data, **options):
    return LoadImageFromFile(**options).pixels('x', data)
def as_viewers_show(data):
    "Pillow's pixels (blue, green, red), turned"
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert('RGB'))[..., ::-1]
def same(a, b, most=6): # lossy decoders differ a little
    assert a.shape==b.shape and a.dtype==b.dtype==np.uint8
    assert np.abs(a.astype(int)-b).max() <= most


# ---- Orientation

_methods = [None, 'FLIP_LEFT_RIGHT', 'ROTATE_180', 'FLIP_TOP_BOTTOM', 'TRANSPOSE', 'ROTATE_270', 'TRANSVERSE', 'ROTATE_90']
def orient(image, orientation):
    "What viewers do about an EXIF orientation"
    method = _methods[orientation-1]
    return image.transpose(getattr(Image.Transpose, method)) if method else image

def with_exif_header(data):
    "A WebP whose EXIF chunk begins with 'Exif', as cwebp writes it"
    i = data.find(b'EXIF')
    n = int.from_bytes(data[i+4:i+8], 'little')
    body = b'Exif\0\0'+data[i+8:i+8+n]
    data = data[:i]+b'EXIF'+len(body).to_bytes(4, 'little')+body+b'\0'*(len(body)%2)
    return data[:4]+(len(data)-8).to_bytes(4, 'little')+data[8:]
def chunk(name, content):
    return len(content).to_bytes(4, 'big')+name+content+zlib.crc32(name+content).to_bytes(4, 'big')
def png_with(*chunks, before=True):
    "A PNG with further chunks, before or behind its pixels"
    data = saved(photo, 'PNG')
    at = 33 if before else len(data)-12
    return data[:at]+b''.join(chunks)+data[at:]
def xmp(orientation, words='tiff:Orientation="{}"'):
    return f'<x:xmpmeta><rdf:Description {words.format(orientation)}/></x:xmpmeta>'.encode()
def magick(orientation):
    "EXIF as ImageMagick writes it into a PNG: a text of hexadecimal digits"
    body = (b'Exif\0\0'+exif(orientation).tobytes()).hex()
    text = f'\nexif\n{len(body)//2:8}\n' + '\n'.join(body[i:i+72] for i in range(0, len(body), 72)) + '\n'
    return text.encode()
def jpeg_with_xmp(orientation):
    data = saved(photo, 'JPEG', quality=95)
    body = b'http://ns.adobe.com/xap/1.0/\0'+xmp(orientation)
    return data[:2]+b'\xff\xe1'+(len(body)+2).to_bytes(2, 'big')+body+data[2:]

turned = dict(
    jpeg=lambda o: saved(photo, 'JPEG', exif=exif(o), quality=95),
    jpeg_cmyk=lambda o: saved(photo.convert('CMYK'), 'JPEG', exif=exif(o), quality=95),
    jpeg_grey=lambda o: saved(photo.convert('L'), 'JPEG', exif=exif(o), quality=95),
    jpeg_xmp=jpeg_with_xmp,
    png=lambda o: saved(photo, 'PNG', exif=exif(o)),
    png_behind=lambda o: png_with(chunk(b'eXIf', exif(o).tobytes()), before=False),
    png_xmp=lambda o: png_with(chunk(b'iTXt', b'XML:com.adobe.xmp\0\0\0\0\0'+xmp(o))),
    png_xmp_packed=lambda o: png_with(chunk(b'iTXt', b'XML:com.adobe.xmp\0\1\0\0\0'+zlib.compress(xmp(o)))),
    png_magick=lambda o: png_with(chunk(b'zTXt', b'Raw profile type exif\0\0'+zlib.compress(magick(o)))),
    png_palette=lambda o: saved(photo.quantize(64), 'PNG', exif=exif(o)),
    png_16=lambda o: saved(Image.fromarray((ramp*65535).astype(np.uint16)), 'PNG', exif=exif(o)),
    webp=lambda o: saved(photo, 'WEBP', lossless=True, exif=exif(o)),
    webp_header=lambda o: with_exif_header(saved(photo, 'WEBP', lossless=True, exif=exif(o))),
    webp_alpha=lambda o: saved(photo.convert('RGBA'), 'WEBP', lossless=True, exif=exif(o)),
    webp_xmp=lambda o: saved(photo, 'WEBP', lossless=True, xmp=xmp(o)),
    tiff=lambda o: saved(photo, 'TIFF', exif=exif(o)),
    tiff_lzw=lambda o: saved(photo, 'TIFF', compression='tiff_lzw', exif=exif(o)),
    tiff_grey=lambda o: saved(photo.convert('L'), 'TIFF', exif=exif(o)),
    avif=lambda o: saved(photo, 'AVIF', quality=95, exif=exif(o)),
)
if not features.check('avif'): turned.pop('avif')

@pytest.mark.parametrize('backend', backends)
@pytest.mark.parametrize('name', turned)
def test_every_format_is_turned(name, backend):
    for orientation in range(1, 9):
        data = turned[name](orientation)
        upright = turned[name](1)
        if name=='png_16': # Pillow makes these white
            want = np.repeat(((ramp*65535).astype(np.uint16)>>8)[..., None], 3, -1).astype(np.uint8)
        else: want = np.asarray(Image.open(io.BytesIO(upright)).convert('RGB'))[..., ::-1]
        want = np.asarray(orient(Image.fromarray(want), orientation))
        if Image.__version__ >= '13' and name!='png_16': same(want, as_viewers_show(data), 12) # it knows all notes
        same(load(data, imdecode_backend=backend), want, 12 if 'cmyk' in name or name=='avif' else 6)
        grey = load(data, imdecode_backend=backend, color_type='grayscale')
        assert grey.shape==want.shape[:2]
        as_stored = load(data, imdecode_backend=backend, color_type='color_ignore_orientation')
        assert as_stored.shape[:2]==(40, 48)
        if orientation==3: same(as_stored[::-1, ::-1], want, 12)


def test_turned_pictures_at_a_smaller_scale_and_in_part():
    crop = dict(type='CenterCrop', crop_size=16)
    big = photo.resize((480, 400))
    for orientation in range(1, 9):
        data = saved(big, 'JPEG', exif=exif(orientation), quality=95)
        want = as_viewers_show(data)
        part = LoadCrop(dict(type='LoadImageFromFile'), crop)
        sample = dict(img_info=dict(filename='x.jpg'), img_prefix=None, img_bytes=data)
        same(part(dict(sample))['img'], LoadCrop(dict(type='LoadImageFromFile'), crop).crop(dict(img=want))['img'], 8)
        half = load(data, reduce_to=100)
        assert half.shape[:2]==tuple(o//4 for o in want.shape[:2])
        same(half, cv2.resize(want, half.shape[1::-1], interpolation=cv2.INTER_AREA), 12)
    data = jpeg_with_xmp(6)
    sample = dict(img_info=dict(filename='x.jpg'), img_prefix=None, img_bytes=data)
    assert LoadCrop(dict(type='LoadImageFromFile'), crop)(sample)['ori_shape']==(48, 40, 3)

def test_turbojpeg_turns_and_reads_cmyk():
    pytest.importorskip('turbojpeg')
    for name in ('jpeg', 'jpeg_cmyk'):
        data = turned[name](6)
        same(load(data, imdecode_backend='turbojpeg'), load(data), 4)

def test_damaged_notes_do_no_harm():
    whole = exif(6).tobytes()
    for body in (whole[:9], whole[:20], b'II*\0\xff\xff\xff\xff', b'MM\0*'+bytes(4), b''):
        data = saved(photo, 'JPEG')
        segment = b'Exif\0\0'+body
        data = data[:2]+b'\xff\xe1'+(len(segment)+2).to_bytes(2, 'big')+segment+data[2:]
        assert load(data).shape==(40, 48, 3)
    for value in (0, 9, 1000): assert load(saved(photo, 'JPEG', exif=exif(value))).shape==(40, 48, 3)

def test_a_picture_of_pillow_is_turned():
    from clsnb.data.preprocessing import picture_sample
    opened = Image.open(io.BytesIO(turned['jpeg'](6)))
    for image in (opened, opened.convert('RGBA')):
        assert picture_sample(image)['img'].shape==(48, 40, 3)
    deep = Image.open(io.BytesIO(turned['png_16'](6)))
    assert abs(picture_sample(deep)['img'].mean()-127)<1
    assert picture_sample(ImageOps.exif_transpose(opened))['img'].shape==(48, 40, 3)


# ---- Depth

def tiff(values, tags):
    "A small TIFF of one strip, uncompressed"
    h,w = values.shape[:2]
    samples = values.shape[2] if values.ndim==3 else 1
    entries = {256: (4, w), 257: (4, h), 258: (3, 8*values.dtype.itemsize), 259: (3, 1), 262: (3, 1), 273: (4, 0),
               277: (3, samples), 278: (4, h), 279: (4, values.nbytes)} | tags
    start = 8+2+12*len(entries)+4
    entries[273] = 4,start
    body = b''.join(struct.pack('<HHLL', tag, kind, 1, value) for tag,(kind,value) in sorted(entries.items()))
    return b'II*\0'+struct.pack('<LH', 8, len(entries))+body+bytes(4)+values.tobytes()

deep = dict( # data, mean of the right pixels
    png_16=saved(Image.fromarray((ramp*65535).astype(np.uint16)), 'PNG'),
    tiff_16=saved(Image.fromarray((ramp*65535).astype(np.uint16)), 'TIFF'),
    tiff_16_white_is_zero=tiff(((1-ramp)*65535).astype(np.uint16), {262: (3, 0)}),
    tiff_float=saved(Image.fromarray(ramp.astype(np.float32)), 'TIFF'),
    pgm_16=b'P5 48 40 65535\n'+(ramp*65535).astype('>u2').tobytes(),
    pgm_12=b'P5 48 40 4095\n'+(ramp*4095).astype('>u2').tobytes(),
    pgm_7=b'P5 48 40 100\n'+(ramp*100).astype(np.uint8).tobytes(),
    pgm_text=b'P2 48 40 50\n'+b' '.join(b'%d' % round(o) for o in (ramp*50).ravel()),
    ppm_16=b'P6 48 40 65535\n'+np.repeat((ramp*65535).astype('>u2')[..., None], 3, -1).tobytes(),
    ppm_10=b'P6 48 40 1023\n'+np.repeat((ramp*1023).astype('>u2')[..., None], 3, -1).tobytes(),
    pfm=b'Pf\n48 40\n-1.0\n'+ramp[::-1].astype('<f4').tobytes(),
    pfm_colour=b'PF\n48 40\n-1.0\n'+np.repeat(ramp[::-1].astype('<f4')[..., None], 3, -1).tobytes(),
    png_16_rgb=cv2.imencode('.png', np.repeat((ramp*65535).astype(np.uint16)[..., None], 3, -1))[1].tobytes(),
    tiff_16_rgb=cv2.imencode('.tif', np.repeat((ramp*65535).astype(np.uint16)[..., None], 3, -1))[1].tobytes(),
    tiff_float_rgb=cv2.imencode('.tif', np.repeat(ramp.astype(np.float32)[..., None], 3, -1),
                                [cv2.IMWRITE_TIFF_COMPRESSION, 1])[1].tobytes(),
)
@pytest.mark.parametrize('backend', backends)
@pytest.mark.parametrize('name', deep)
def test_deep_pictures_keep_their_brightness(name, backend):
    for data in (deep[name], deep[name]):
        img = load(data, imdecode_backend=backend)
        assert img.shape==(40, 48, 3) and img.dtype==np.uint8
        assert abs(img.mean()-127)<1.5 and len(np.unique(img))>=(50 if name in ('pgm_7', 'pgm_text') else 250)
        assert np.all(np.diff(img[0, :, 0].astype(int))>=0)
        grey = load(data, imdecode_backend=backend, color_type='grayscale')
        assert grey.shape==(40, 48) and abs(grey.mean()-127)<1.5

open_depth = dict(
    png_12=(saved(Image.fromarray((ramp*4095).astype(np.uint16)), 'PNG'), 12),
    tiff_12=(saved(Image.fromarray((ramp*4095).astype(np.uint16)), 'TIFF'), 12),
    png_12_rgb=(cv2.imencode('.png', np.repeat((ramp*4095).astype(np.uint16)[..., None], 3, -1))[1].tobytes(), 12),
    png_8_in_16=(saved(Image.fromarray((ramp*255).astype(np.uint16)), 'PNG'), 8),
    tiff_32=(saved(Image.fromarray((ramp*60000).astype(np.int32)), 'TIFF'), (0, 60000)),
    tiff_signed=(tiff((ramp*2000-1000).astype(np.int16), {339: (3, 2)}), (-1000, 1000)),
    tiff_float_255=(saved(Image.fromarray((ramp*255).astype(np.float32)), 'TIFF'), (0, 255)),
    tiff_float_negative=(saved(Image.fromarray((ramp*2-1).astype(np.float32)), 'TIFF'), (-1, 1)),
)
@pytest.mark.parametrize('backend', backends)
@pytest.mark.parametrize('name', open_depth)
def test_what_the_type_leaves_open_is_refused_until_depth_says_it(name, backend):
    data,depth = open_depth[name]
    with pytest.raises(BrokenPicture, match=r'Cannot use the picture x: .*depth=') as e:
        load(data, imdecode_backend=backend)
    assert e.value.problem=='depth' and '\n' not in str(e.value)
    for asked in (depth, 'values'):
        img = load(data, imdecode_backend=backend, depth=asked)
        assert abs(img.mean()-127)<1.5 and len(np.unique(img))>=250
def test_depth_is_checked():
    for wrong in ('12', 0, 33, (1, 1), (1, 2, 3), True, 'value'):
        with pytest.raises(ConfigError, match='depth is a number of bits'): LoadImageFromFile(depth=wrong)
    with pytest.raises(ConfigError, match='unchanged'): LoadImageFromFile(color_type='unchanged', depth=12)
    with pytest.raises(BrokenPicture, match='do not fit depth=12'): load(deep['png_16'], depth=12)
    broken = ramp.astype(np.float32)
    broken[3, 3] = np.nan
    with pytest.raises(BrokenPicture, match='not finite'): load(saved(Image.fromarray(broken), 'TIFF'), depth=(0, 1))
    assert load(saved(Image.fromarray(np.zeros((4, 4), np.uint16)), 'PNG')).max()==0 # black is black

def test_unchanged_keeps_what_is_stored():
    for backend in backends:
        got = load(deep['png_16'], color_type='unchanged', imdecode_backend=backend)
        assert (got==(ramp*65535).astype(np.uint16)).all()
        rgba = np.dstack([smooth, columns*5]).astype(np.uint8)
        got = load(saved(Image.fromarray(rgba), 'PNG'), color_type='unchanged', imdecode_backend=backend)
        assert (got==rgba[..., [2, 1, 0, 3]]).all()
        for mode in ('P', 'CMYK'): # of a palette its colours, not its places
            image = photo.convert(mode)
            got = load(saved(image, 'TIFF'), color_type='unchanged', imdecode_backend='pillow')
            same(got, np.asarray(image.convert('RGB'))[..., ::-1])
        black_white = photo.convert('1')
        got = load(saved(black_white, 'PNG'), color_type='unchanged', imdecode_backend=backend)
        assert (got==np.asarray(black_white.convert('L'))).all()
        assert load(turned['jpeg'](6), color_type='unchanged', imdecode_backend=backend).shape==(40, 48, 3)


# ---- Modes and transparency

def lab():
    from PIL import ImageCms
    there = ImageCms.buildTransform(ImageCms.createProfile('sRGB'), ImageCms.createProfile('LAB'), 'RGB', 'LAB')
    return ImageCms.applyTransform(photo, there)
clear = photo.convert('RGBA')
clear.putalpha(Image.fromarray((columns*5).astype(np.uint8)))
modes = dict(
    tiff_rgba=lambda: saved(clear, 'TIFF'),
    tiff_cmyk=lambda: saved(photo.convert('CMYK'), 'TIFF'),
    tiff_ycbcr=lambda: saved(photo.convert('YCbCr'), 'TIFF'),
    tiff_lab=lambda: saved(lab(), 'TIFF'),
    tiff_one_bit=lambda: saved(photo.convert('1'), 'TIFF'),
    tiff_palette=lambda: saved(photo.quantize(64), 'TIFF'),
    tiff_fax=lambda: saved(photo.convert('1'), 'TIFF', compression='group4'),
    tiff_jpeg=lambda: saved(photo, 'TIFF', compression='jpeg'),
    png_rgba=lambda: saved(clear, 'PNG'),
    png_la=lambda: saved(clear.convert('LA'), 'PNG'),
    png_one_bit=lambda: saved(photo.convert('1'), 'PNG'),
    png_palette=lambda: saved(photo.quantize(5), 'PNG'),
    png_palette_clear=lambda: saved(clear.quantize(32, method=2), 'PNG'),
    png_colour_key=lambda: saved(photo, 'PNG', transparency=(0, 0, 255)),
    gif=lambda: saved(photo.quantize(64), 'GIF'),
    gif_clear=lambda: saved(photo.quantize(64), 'GIF', transparency=3),
    webp=lambda: saved(photo, 'WEBP', quality=95),
    webp_clear=lambda: saved(clear, 'WEBP', lossless=True, exact=True),
    bmp=lambda: saved(photo, 'BMP'),
    bmp_grey=lambda: saved(photo.convert('L'), 'BMP'),
    bmp_one_bit=lambda: saved(photo.convert('1'), 'BMP'),
    bmp_rgba=lambda: saved(clear, 'BMP'),
    ppm=lambda: saved(photo, 'PPM'),
    pbm=lambda: saved(photo.convert('1'), 'PPM'),
)
@pytest.mark.parametrize('backend', backends)
@pytest.mark.parametrize('name', modes)
def test_every_mode_is_read_as_viewers_show_it(name, backend):
    if name=='tiff_ycbcr' and Image.__version__ < '11': pytest.skip('Pillow writes a file that it cannot read')
    data = modes[name]()
    same(load(data, imdecode_backend=backend), as_viewers_show(data))
    assert load(data, imdecode_backend=backend, color_type='grayscale').shape==(40, 48)

@pytest.mark.parametrize('name', ['png_rgba', 'png_la', 'webp_clear', 'tiff_rgba', 'png_palette_clear', 'gif_clear'])
def test_background_is_seen_through_transparent_pixels(name):
    data = modes[name]()
    for background in (255, (10, 200, 30)):
        behind = Image.new('RGBA', size, background if isinstance(background, tuple) else (255, 255, 255))
        want = Image.alpha_composite(behind, Image.open(io.BytesIO(data)).convert('RGBA')).convert('RGB')
        same(load(data, background=background), np.asarray(want)[..., ::-1], 2)
    plain = saved(photo, 'PNG')
    assert (load(plain, background=0)==load(plain)).all()

def test_background_behind_sixteen_bits():
    rgba = np.zeros((4, 4, 4), np.uint16)
    rgba[..., 0],rgba[:2, :, 3] = 60000,65535
    img = load(cv2.imencode('.png', rgba)[1].tobytes(), background=(0, 0, 255))
    assert img[0, 0].tolist()==[234, 0, 0] and img[3, 3].tolist()==[255, 0, 0]
    with pytest.raises(ConfigError, match='background'): LoadImageFromFile(background=(1, 2))

def test_odd_heads_of_bmp():
    top_down = bytearray(saved(photo, 'BMP'))
    struct.pack_into('<l', top_down, 22, -40)
    upside_down = smooth[::-1, :, ::-1] # rows from the top now
    same(load(bytes(top_down)), upside_down)
    plain = saved(photo, 'BMP')
    gap = bytearray(plain[:54]+b'gap!'+plain[54:]) # pixels do not follow the head at once
    struct.pack_into('<L', gap, 10, 58)
    same(load(bytes(gap)), smooth[..., ::-1])


# ---- Animations

def test_the_still_image_of_an_animated_png():
    red,green = (Image.new('RGB', size, name) for name in ('red', 'lime'))
    data = saved(red, 'PNG', save_all=True, default_image=True, append_images=[green, green.rotate(5)])
    assert picture_head(data).frames and not picture_head(still_png(data)).frames
    for options in (dict(), dict(imdecode_backend='pillow'), dict(color_type='unchanged')):
        assert load(data, **options)[5, 5].tolist()[:3]==[0, 0, 255]
    without = saved(red, 'PNG', save_all=True, append_images=[green])
    assert load(without)[5, 5].tolist()==[0, 0, 255] # then the first frame is the still image
@pytest.mark.parametrize('name', ['GIF', 'WEBP', 'TIFF'])
def test_the_first_frame_of_other_animations(name):
    frames = [Image.new('RGB', size, colour) for colour in ('red', 'lime', 'blue')]
    data = saved(frames[0], name, save_all=True, append_images=frames[1:])
    for backend in backends: same(load(data, imdecode_backend=backend), as_viewers_show(data))


# ---- Size

def jpeg_of(width, height):
    "A JPEG whose head claims a size that its few bytes do not hold"
    data = saved(photo, 'JPEG')
    i = data.index(b'\xff\xc0')
    return data[:i+5]+struct.pack('>HH', height, width)+data[i+9:]
def png_of(width, height):
    rest = saved(photo, 'PNG')[33:]
    return b'\x89PNG\r\n\x1a\n'+chunk(b'IHDR', struct.pack('>LLBBBBB', width, height, 8, 0, 0, 0, 0))+rest
claims = dict(
    jpeg=jpeg_of(30_000, 30_000), jpeg_progressive=jpeg_of(30_000, 30_000).replace(b'\xff\xc0', b'\xff\xc2'),
    jpeg_below_the_limit=jpeg_of(13_000, 13_000), png=png_of(30_000, 30_000), png_line=png_of(1, 67_108_864),
    png_other_line=png_of(67_108_864, 1), jpeg_junk=jpeg_of(30_000, 30_000).replace(b'\xff\xc0', b'junk\xff\xc0'),
    tiff=saved(Image.new('1', (20_000, 20_000)), 'TIFF', compression='group4'),
    gif=b'GIF89a'+struct.pack('<HH', 60_000, 60_000)+saved(photo.quantize(8), 'GIF')[10:],
    bmp=saved(photo, 'BMP')[:18]+struct.pack('<ll', 40_000, 40_000)+saved(photo, 'BMP')[26:],
    webp=saved(Image.new('RGB', (16_000, 16_000)), 'WEBP', lossless=True, method=0),
    pgm=b'P5 60000 60000 255\n'+bytes(99), pfm=b'PF 60000 60000\n-1\n'+bytes(99),
    pam=b'P7\nWIDTH 60000\nHEIGHT 60000\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n'+bytes(99),
)
def test_huge_pictures_are_refused_before_they_take_memory(tmp_path):
    "In a process of its own, whose peak is measured"
    for name,data in claims.items(): (tmp_path/name).write_bytes(data)
    code = '''
import json, resource, sys
from pathlib import Path
from clsnb.data.pixels.check_file import check_file
from clsnb.data.pixels.fast_decode import LoadCrop
from clsnb.data.pixels.loading import BrokenPicture, LoadImageFromFile
from clsnb.data.transforms.pipeline import build_transform
load = [dict(type='LoadImageFromFile', imdecode_backend=b) for b in ('cv2', 'pillow')]
load += [dict(load[0], color_type='unchanged'), dict(load[0], reduce_to=64)]
steps = [build_transform(o) for o in load] + [LoadCrop(load[0], dict(type='CenterCrop', crop_size=32))]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    found[path.name] = [check_file(str(path))[0][0][0]]
    for step in steps:
        try: step(dict(img_info=dict(filename=str(path)), img_prefix=None))
        except BrokenPicture as e: found[path.name].append(e.problem)
        else: found[path.name].append('read')
print(json.dumps([found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss-before]))
'''
    run = subprocess.run([sys.executable, '-c', code, str(tmp_path)], capture_output=True, text=True, timeout=200)
    assert not run.stderr, run.stderr
    found,more = json.loads(run.stdout)
    for name,problems in found.items():
        assert set(problems) <= {'huge', 'broken'}, (name, problems)
    assert {o for name in ('jpeg', 'png', 'tiff', 'webp') for o in found[name]}=={'huge'}
    assert more < 200_000, more # kilobytes

def test_the_limit_can_be_set():
    data = saved(photo, 'PNG')
    assert load(data, max_pixels=48*40).shape==(40, 48, 3)
    for backend in backends:
        with pytest.raises(BrokenPicture, match='48 x 40 pixels, more than max_pixels=1,919'):
            load(data, max_pixels=48*40-1, imdecode_backend=backend)
    assert load(data, max_pixels=None).shape==(40, 48, 3)
    with pytest.raises(ConfigError, match='max_pixels'): LoadImageFromFile(max_pixels=0)
    large = saved(Image.new('1', (14_000, 14_000)), 'TIFF', compression='group4') # above Pillow's limit
    with pytest.raises(BrokenPicture, match='14,000 x 14,000'): load(large)


def test_a_line_is_not_blown_up():
    "A spacer of the web would become half a gigabyte"
    from clsnb.data.transforms.resize_crop import Resize
    line = np.zeros((1, 3000, 3), np.uint8)
    with pytest.raises(BrokenPicture, match='3,000 x 1 pixels and would become 768,000 x 256'):
        Resize((256, -1))(dict(img=line))
    with pytest.raises(BrokenPicture, match='1 x 40,000 pixels'):
        Resize((256, -1))(dict(img=np.zeros((40_000, 1), np.uint8)))
    assert Resize((256, -1))(dict(img=np.zeros((10, 300, 3), np.uint8)))['img'].shape==(256, 7680, 3)
    assert Resize((256, -1), adaptive_side='long')(dict(img=line))['img'].shape==(1, 256, 3)
    assert Resize((224, 224))(dict(img=line))['img'].shape==(224, 224, 3)


# ---- What is left out

@pytest.fixture
def mixed(tmp_path):
    "Two classes with WebP, TIFF and GIF; a drawing and a raw file that nothing here decodes"
    root = tmp_path/'d'
    for name in ('a', 'b'):
        (root/name).mkdir(parents=True)
        for i,ending in enumerate(('jpg', 'webp', 'tiff', 'gif', 'bmp')):
            pixels = photo.rotate(9*i+(40 if name=='b' else 0))
            pixels.save(root/name/f'{i}.{ending}')
        (root/name/'drawing.psd').write_bytes(b'8BPS')
    (root/'a/raw.NEF').touch()
    return root
note = '1 .nef picture left out: convert them to PNG or JPEG; 2 .psd pictures left out: convert them to PNG or JPEG'

def test_finetune_says_what_it_leaves_out(mixed, tmp_path):
    from clsnb.apis.finetune import finetune, finetune_config
    tiny = 'resnet18-tiny_1xb16_photos'
    cfg = finetune_config(tiny, mixed, tmp_path/'w', weights=False)
    plan = (tmp_path/'w/finetune.py').read_text()
    assert note in plan and '8 training and 2 validation' in plan and cfg.data.train.type=='CustomDataset'
    finetune_config(tiny, mixed, tmp_path/'w2', weights=False, options={'data.train.extensions': ['.jpg', '.webp']})
    plan = (tmp_path/'w2/finetune.py').read_text()
    assert "2 .gif pictures left out: add '.gif' to extensions" in plan
    lists = [line for name in ('train', 'val') for line in (tmp_path/f'w2/{name}.txt').read_text().splitlines()]
    assert len(lists)==4 and all(o.split()[0].endswith(('.jpg', '.webp')) for o in lists)
    quiet = {'data.workers_per_gpu': 0, 'log_level': 'ERROR'}
    run = finetune(tiny, mixed, tmp_path/'w3', epochs=1, size=32, weights=False, options=quiet, device='cpu')
    assert run.left_out==[note] and note in run.report.read_text()

def test_train_and_predict_say_what_they_leave_out(mixed, tmp_path, caplog):
    from clsnb.apis.fit import fit
    from clsnb.apis.inference import find_pictures
    from clsnb.config.config import Config
    cfg = Config.fromfile('resnet18-tiny_1xb16_photos')
    for name in ('train', 'val', 'test'):
        cfg.data[name] = dict(type='CustomDataset', data_prefix=str(mixed), pipeline=cfg.data[name].pipeline)
    cfg.merge_from_dict({'model.head.num_classes': 2, 'runner.max_epochs': 1, 'data.workers_per_gpu': 0,
                         'data.samples_per_gpu': 5})
    run = fit(cfg, tmp_path/'w', device='cpu')
    assert note in next((tmp_path/'w').glob('*.log')).read_text() and run.left_out==[note]
    assert len(run.results)==10
    with caplog.at_level('WARNING', 'clsnb'): files = find_pictures([mixed])
    assert len(files)==10 and note in caplog.text

def test_verify_says_what_it_leaves_out(mixed):
    from clsnb.data.verify import verify_dataset, verify_report
    for data in (str(mixed), dict(type='CustomDataset', data_prefix=str(mixed))):
        df = verify_dataset(data, workers=0)
        assert df.attrs['checked']==10 and note in verify_report(df)
        assert df[df.problem=='left out'].detail.tolist()==[note]

def test_what_was_left_out_is_remembered_with_a_kept_scan(mixed, tmp_path, monkeypatch):
    from clsnb.data.sets.scan import scan_folders
    monkeypatch.setenv('CLSNB_HOME', str(tmp_path/'home'))
    monkeypatch.setattr('clsnb.data.sets.scan.cache_from', 3)
    for path in (mixed, mixed/'a', mixed/'b'): os.utime(path, (1_700_000_000, 1_700_000_000))
    monkeypatch.setattr('clsnb.data.sets.scan._settled', -10**6) # their ctime is new
    first = scan_folders(mixed)
    monkeypatch.setattr('clsnb.data.sets.scan._read_folders', None) # from the file alone
    again = scan_folders(mixed)
    assert again.left_out==first.left_out=={'.gif': 2, '.nef': 1, '.psd': 2, '.tiff': 2, '.webp': 2}

def test_pictures_beside_class_folders_are_mentioned(mixed):
    from clsnb.data.sets.folder import CustomDataset
    photo.save(mixed/'top.png')
    assert '1 picture lies beside the class folders' in CustomDataset(str(mixed)).left_out


# ---- verify, loader and predict agree

def damaged():
    "Files that are cut off or damaged in the middle, of every format"
    for name in ('JPEG', 'PNG', 'GIF', 'BMP', 'TIFF', 'WEBP', 'PPM', 'JPEG2000'):
        whole = saved(photo, name)
        yield f'half_{name}',whole[:len(whole)//2]
        yield f'end_{name}',whole[:-3]
        middle = bytearray(whole)
        middle[len(whole)//2:len(whole)//2+40] = bytes(40)
        yield f'middle_{name}',bytes(middle)
def odd_files():
    "About 100 files of many formats, modes and orientations, some broken"
    yield from ((f'turned_{name}', make(6)) for name,make in turned.items())
    yield from ((f'deep_{name}', data) for name,data in deep.items())
    yield from ((f'open_{name}', data) for name,(data,_) in open_depth.items())
    yield from ((f'mode_{name}', make()) for name,make in modes.items())
    yield from ((f'claim_{name}', data) for name,data in claims.items() if name not in ('tiff', 'webp'))
    yield from damaged()
    yield 'empty',b''
    yield 'page',b'<!DOCTYPE html>'

def test_verify_loader_and_predict_agree(tmp_path, capfd):
    from clsnb.data.preprocessing import picture_sample
    from clsnb.data.verify import verify_dataset
    folder = tmp_path/'a'
    folder.mkdir()
    for name,data in odd_files(): (folder/f'{name}.png').write_bytes(data)
    step = LoadImageFromFile()
    refused = set()
    for path in sorted(folder.iterdir()):
        try: pixels = step(picture_sample(path))['img']
        except BrokenPicture as e:
            assert path.name in str(e)
            refused.add(path.name)
        else: assert pixels.dtype==np.uint8 and pixels.shape[2:]==(3,)
    df = verify_dataset(str(folder), workers=0, duplicates=False)
    assert set(df[~df.usable].file)==refused
    assert len(df[df.problem=='rotated'])>=len(turned)-1 # png_16 among them
    assert 30 < len(refused) < 60 and df.attrs['checked']>90
    assert capfd.readouterr().err=='' # nor does a decoder write there

def test_verify_uses_the_loading_of_a_config(tmp_path):
    from clsnb.data.verify import verify_dataset
    (tmp_path/'a').mkdir()
    (tmp_path/'a/x.png').write_bytes(open_depth['png_12'][0])
    (tmp_path/'a/y.jpg').write_bytes(turned['jpeg'](6))
    split = dict(type='CustomDataset', data_prefix=str(tmp_path))
    assert verify_dataset(split, workers=0).problem.tolist()==['depth', 'rotated']
    step = dict(type='LoadImageFromFile', depth=12, color_type='color_ignore_orientation')
    loads = dict(split, pipeline=[step])
    for part in (loads, dict(type='RepeatDataset', times=2, dataset=loads)):
        df = verify_dataset(part, workers=0, duplicates=False)
        assert set(df.problem)=={'mode', 'rotated'} and df.usable.all()
        assert all('is ignored' in o for o in df[df.problem=='rotated'].detail)

def test_lines_of_decoders_do_not_reach_the_screen(capfd):
    whole = saved(photo.resize((200, 200)), 'JPEG')
    lines = dict(jpeg=whole[:900]+whole[1100:], png=saved(photo, 'PNG')[:300], tiff=saved(photo, 'TIFF')[:900],
                 gif=saved(photo.quantize(8), 'GIF')[:200], pgm=b'P5 40 40 255\n', jp2=saved(photo, 'JPEG2000')[:150])
    crop = LoadCrop(dict(type='LoadImageFromFile'), dict(type='CenterCrop', crop_size=16))
    for name,data in lines.items():
        for step in (LoadImageFromFile(), LoadImageFromFile(imdecode_backend='pillow'), crop):
            try: step(dict(img_info=dict(filename=name), img_prefix=None, img_bytes=data))
            except BrokenPicture: pass
    assert capfd.readouterr().err==''
    os.write(2, b'still there')
    assert capfd.readouterr().err=='still there'


# ---- The command

def clsnb(*words, **options):
    command = [sys.executable, '-m', 'clsnb', *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)
def test_verify_takes_whatever_holds_pictures(tmp_path):
    flat = tmp_path/'flat'
    flat.mkdir()
    photo.save(flat/'a.png')
    photo.rotate(90).save(flat/'b.webp')
    (flat/'c.psd').touch()
    done = clsnb('verify', flat, '--out', tmp_path/'o.csv')
    assert done.returncode==0 and '2 pictures checked: all can be decoded' in done.stdout
    assert '1 .psd picture left out: convert them to PNG or JPEG' in done.stdout and not done.stderr
    assert 'left out,1 .psd picture' in (tmp_path/'o.csv').read_text()
    assert '1 picture checked' in clsnb('verify', flat/'a.png').stdout
    assert '2 pictures checked' in clsnb('verify', flat/'a.png', flat/'b.webp').stdout
    for name in ('nowhere', tmp_path/'nowhere'):
        done = clsnb('verify', name, cwd=tmp_path)
        assert done.returncode==2 and f"There is no folder or picture '{name}'" in done.stderr
    assert 'no config file' in clsnb('verify', tmp_path/'nowhere.py').stderr
    classes = tmp_path/'classes'
    for name in ('a', 'b'): (classes/name).mkdir(parents=True)
    photo.save(classes/'a'/'x.png')
    photo.save(classes/'top.png')
    report = clsnb('verify', classes).stdout
    assert '2 pictures checked' in report and 'b (a class folder without pictures)' in report
    assert 'two labels' not in report # one of them has none

def children(pid):
    found = subprocess.run(['ps', '-o', 'pid=', '--ppid', str(pid)], capture_output=True, text=True).stdout.split()
    return [int(o) for o in found]
def is_alive(pid):
    try: return 'zombie' not in Path(f'/proc/{pid}/status').read_text()
    except OSError: return False
@pytest.mark.skipif(sys.platform!='linux', reason='needs /proc')
@pytest.mark.parametrize('name', ['SIGTERM', 'SIGHUP', 'SIGKILL', 'SIGINT'])
def test_no_process_of_verify_outlives_it(tmp_path, name):
    folder = tmp_path/'d'/'a'
    folder.mkdir(parents=True)
    large = saved(Image.fromarray(np.random.default_rng(0).integers(0, 255, (900, 900, 3), np.uint8)), 'PNG')
    for i in range(300): (folder/f'{i:03}.png').write_bytes(large if i else b'')
    out = tmp_path/'o.csv'
    words = [sys.executable, '-m', 'clsnb', 'verify', str(tmp_path/'d'), '--workers', '2', '--out', str(out)]
    run = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    try:
        deadline = time.time()+60
        while time.time()<deadline and not (out.exists() and 'empty' in out.read_text()): time.sleep(.1)
        workers = children(run.pid)
        assert len(workers)==2
        run.send_signal(getattr(signal, name))
        run.wait(30)
        deadline = time.time()+10
        while time.time()<deadline and any(map(is_alive, workers)): time.sleep(.1)
        assert not any(map(is_alive, workers))
        head,first,*_ = out.read_text().splitlines()
        assert (head, first)==('split,file,problem,detail,usable', 'data,a/000.png,empty,0 bytes,False')
    finally: run.kill()
