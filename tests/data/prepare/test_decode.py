"""Each kind of pixel that a file may hold, against values that were worked out by hand."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from jaxdl.data.prepare import tfds
from jaxdl.data.prepare.decode import decode_image
from jaxdl.errors import InputError, RunError
from tests.data.prepare import publishers


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def image_of(pixels, mode=None, dtype=np.uint8):
    """A Pillow image of one row."""
    pixels = np.array([pixels], dtype)
    if mode is None:
        return Image.fromarray(pixels)
    return Image.frombytes(mode, (pixels.shape[1], 1), pixels.tobytes())


def png(width, bits, colour, row, **chunks):
    """One row as PNG: colour type 0 is grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGBA."""

    def chunk(name, content):
        body = name.encode() + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    parts = {"IHDR": struct.pack(">IIBBBBB", width, 1, bits, colour, 0, 0, 0), **chunks}
    parts |= {"IDAT": zlib.compress(b"\0" + row), "IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts.items())


def tiff(width, bits, photometric, row, *, order="<", samples=1, extra=None, sample_format=1):
    """One row as TIFF: photometric 0 is grey with white 0, 1 grey, 2 RGB, 5 CMYK."""
    data_at = 8 + 2 + 12 * 12 + 4
    tags = {
        256: width, 257: 1, 258: bits, 259: 1, 262: photometric, 273: data_at, 277: samples,
        278: 1, 279: len(row), 284: 1, 339: sample_format,
    }  # fmt: skip
    many = {}
    if samples > 1:  # one value a sample, which lie behind the row
        many = {258: struct.pack(f"{order}{samples}H", *[bits] * samples)}
        del tags[339]
    if extra is not None:
        tags[338] = extra  # 0: nothing, 1: alpha that colours are multiplied by, 2: alpha
    row += b"\0" * (len(row) % 2)
    directory, behind = struct.pack(f"{order}H", len(tags)), b""
    for tag in sorted(tags):
        if tag in many:
            where = data_at + len(row) + len(behind)
            directory += struct.pack(f"{order}HHII", tag, 3, samples, where)
            behind += many[tag]
        else:
            directory += struct.pack(f"{order}HHIHH", tag, 3, 1, tags[tag], 0)
    directory = (directory + b"\0\0\0\0").ljust(data_at - 8, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    return head + directory + row + behind


PALETTE = bytes([10, 20, 30, 40, 50, 60])
"""Two colours: luma .299 R + .587 G + .114 B is 18.15 and 48.15."""
DEEP = [0, 4369, 65535]  # 0, 0x1111, 0xffff
BIG = struct.pack(">3H", *DEEP)
LITTLE = struct.pack("<3H", *DEEP)


def in_palette(kind, **options):
    image = Image.frombytes("P", (2, 1), b"\0\1")
    image.putpalette(PALETTE)
    return encoded(image, kind, **options)


def grey_alpha_palette():
    image = Image.frombytes("PA", (2, 1), bytes([0, 20, 1, 255]))
    image.putpalette(PALETTE)
    return encoded(image, "tiff")


TWO = [(1, 2, 3), (4, 5, 6)]  # luma 1.815 and 4.815
TWO_ALPHA = [(1, 2, 3, 0), (4, 5, 6, 128)]
INK = [(207, 198, 190), (0, 255, 255)]
"""What CMYK (10, 20, 30, 40) and (255, 0, 0, 0) are: (255 - C) (255 - K) / 255 and so on."""
OTHER_PAGE = {"save_all": True, "append_images": [Image.new("RGB", (2, 1), (200, 0, 0))]}

# name: (content, grey, colours, alpha); None: as grey, and opaque.
FILES = {
    "png grey 1 bit": (png(2, 1, 0, b"\x40"), [0, 255], None, None),
    "png grey 2 bits": (png(4, 2, 0, b"\x1b"), [0, 85, 170, 255], None, None),
    "png grey 4 bits": (png(2, 4, 0, b"\x1f"), [17, 255], None, None),
    "png grey 8 bits": (png(3, 8, 0, b"\0\x64\xff"), [0, 100, 255], None, None),
    "png grey 16 bits": (png(3, 16, 0, BIG), [0, 17, 255], None, None),
    "png 1 bit, 1 clear": (png(2, 1, 0, b"\x40", tRNS=b"\0\1"), [0, 255], None, [255, 0]),
    "png 2 bits, 1 clear": (
        png(4, 2, 0, b"\x1b", tRNS=b"\0\1"), [0, 85, 170, 255], None, [255, 0, 255, 255],
    ),
    "png 4 bits, 1 clear": (png(2, 4, 0, b"\x1f", tRNS=b"\0\1"), [17, 255], None, [0, 255]),
    "png 8 bits, 9 clear": (png(2, 8, 0, b"\7\x09", tRNS=b"\0\x09"), [7, 9], None, [255, 0]),
    "png 16 bits, 0x1111 clear": (
        # 0x11ff has the same high byte, and is not clear.
        png(2, 16, 0, b"\x11\x11\x11\xff", tRNS=b"\x11\x11"), [17, 17], None, [0, 255],
    ),
    "png grey alpha": (png(2, 8, 4, bytes([10, 20, 30, 255])), [10, 30], None, [20, 255]),
    "png grey alpha 16 bits": (png(1, 16, 4, b"\x11\x11\x01\xff"), [17], None, [1]),
    "png colour": (png(2, 8, 2, bytes([1, 2, 3, 4, 5, 6])), [2, 5], TWO, None),
    "png colour, one clear": (
        png(2, 8, 2, bytes([1, 2, 3, 4, 5, 6]), tRNS=b"\0\4\0\5\0\6"), [2, 5], TWO, [255, 0],
    ),
    "png colour 16 bits": (png(1, 16, 2, BIG), [39], [(0, 17, 255)], None),
    "png colour alpha": (
        png(2, 8, 6, bytes([1, 2, 3, 0, 4, 5, 6, 128])), [2, 5], TWO, [0, 128],
    ),
    "png colour alpha 16 bits": (png(1, 16, 6, BIG + b"\x01\xff"), [39], [(0, 17, 255)], [1]),
    "png palette": (
        png(2, 1, 3, b"\x40", PLTE=PALETTE), [18, 48], [(10, 20, 30), (40, 50, 60)], None,
    ),
    "png palette alpha": (
        png(2, 8, 3, b"\0\1", PLTE=PALETTE, tRNS=b"\x80"),
        [18, 48], [(10, 20, 30), (40, 50, 60)], [128, 255],
    ),
    "png palette, one clear": (
        png(2, 8, 3, b"\0\1", PLTE=PALETTE, tRNS=b"\xff\0"),
        [18, 48], [(10, 20, 30), (40, 50, 60)], [255, 0],
    ),
    "png animated": (encoded(image_of(TWO), "png", **OTHER_PAGE), [2, 5], TWO, None),
    "gif": (in_palette("gif"), [18, 48], [(10, 20, 30), (40, 50, 60)], None),
    "gif, one clear": (
        in_palette("gif", transparency=1),
        [18, 48], [(10, 20, 30), (40, 50, 60)], [255, 0],
    ),
    "gif grey": (encoded(image_of([0, 100, 255]), "gif"), [0, 100, 255], None, None),
    "gif animated": (
        in_palette("gif", **OTHER_PAGE), [18, 48], [(10, 20, 30), (40, 50, 60)], None,
    ),
    "bmp 1 bit": (encoded(image_of([0, 255]).convert("1"), "bmp"), [0, 255], None, None),
    "bmp grey": (encoded(image_of([0, 100, 255]), "bmp"), [0, 100, 255], None, None),
    "bmp palette": (in_palette("bmp"), [18, 48], [(10, 20, 30), (40, 50, 60)], None),
    "bmp colour": (encoded(image_of(TWO), "bmp"), [2, 5], TWO, None),
    "webp": (encoded(image_of(TWO), "webp", lossless=True), [2, 5], TWO, None),
    "webp alpha": (
        encoded(image_of(TWO_ALPHA), "webp", lossless=True, exact=True), [2, 5], TWO, [0, 128],
    ),
    "webp animated": (
        encoded(image_of(TWO), "webp", lossless=True, **OTHER_PAGE), [2, 5], TWO, None,
    ),
    "jpeg grey": (encoded(image_of([77]), "jpeg"), [77], None, None),
    "jpeg colour": (
        encoded(image_of([(77, 77, 77)]), "jpeg"), [77], [(77, 77, 77)], None,
    ),
    "jpeg cmyk": (
        encoded(Image.new("CMYK", (1, 1), (10, 20, 30, 40)), "jpeg", quality=100),
        [200], INK[:1], None,
    ),
    "tiff 1 bit": (tiff(2, 1, 1, b"\x40"), [0, 255], None, None),
    "tiff 1 bit, 0 white": (tiff(2, 1, 0, b"\x40"), [255, 0], None, None),
    "tiff 2 bits": (tiff(4, 2, 1, b"\x1b"), [0, 85, 170, 255], None, None),
    "tiff 4 bits": (tiff(2, 4, 1, b"\x1f"), [17, 255], None, None),
    "tiff 8 bits, 0 white": (tiff(3, 8, 0, b"\0\x64\xff"), [255, 155, 0], None, None),
    "tiff 12 bits": (tiff(2, 12, 1, b"\x11\x1f\xff"), [17, 255], None, None),
    "tiff 16 bits": (tiff(3, 16, 1, LITTLE), [0, 17, 255], None, None),
    "tiff 16 bits, big end first": (tiff(3, 16, 1, BIG, order=">"), [0, 17, 255], None, None),
    "tiff 16 bits, 0 white": (tiff(3, 16, 0, LITTLE), [255, 238, 0], None, None),
    "tiff 32 bits": (
        encoded(image_of(DEEP, dtype=np.int32), "tiff"), [0, 17, 255], None, None,
    ),
    "tiff grey alpha": (
        encoded(image_of([(10, 20), (30, 255)], "LA"), "tiff"), [10, 30], None, [20, 255],
    ),
    "tiff palette": (in_palette("tiff"), [18, 48], [(10, 20, 30), (40, 50, 60)], None),
    "tiff palette alpha": (
        grey_alpha_palette(), [18, 48], [(10, 20, 30), (40, 50, 60)], [20, 255],
    ),
    "tiff colour 16 bits": (
        tiff(1, 16, 2, LITTLE, samples=3), [39], [(0, 17, 255)], None,
    ),
    "tiff alpha multiplied": (
        # 10 * 255 / 128 = 19.9, of which Pillow keeps the whole.
        tiff(1, 8, 2, bytes([10, 20, 30, 128]), samples=4, extra=1), [35], [(19, 39, 59)], [128],
    ),
    "tiff cmyk": (
        encoded(image_of([(10, 20, 30, 40), (255, 0, 0, 0)], "CMYK"), "tiff"),
        [200, 179], INK, None,
    ),
    "tiff ycbcr": (
        # With b = Cb - 128 and r = Cr - 128: Y + 1.402 r, Y - .344 b - .714 r, Y + 1.772 b.
        encoded(image_of([(100, 120, 140)], "YCbCr"), "tiff"), [100], [(116, 94, 85)], None,
    ),
    "tiff pages": (encoded(image_of(TWO), "tiff", **OTHER_PAGE), [2, 5], TWO, None),
    "pgm 16 bits": (b"P5 3 1 65535\n" + BIG, [0, 17, 255], None, None),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_what_they_are_by_hand(name):
    content, grey, colours, alpha = FILES[name]
    grey = np.array(grey)
    colours = np.stack([grey] * 3, axis=-1) if colours is None else np.array(colours)
    alpha = np.full(len(grey), 255) if alpha is None else np.array(alpha)
    expected = {
        1: grey[:, None],
        3: colours,
        4: np.concatenate([colours, alpha[:, None]], axis=1),
    }
    for channels, row in expected.items():
        found = decode_image(content, channels)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, row[None], f"{channels} channels")


def test_the_example_of_16_bits():
    """The high byte, as TensorFlow takes it; Pillow alone makes black and white of it."""
    content = encoded(image_of(DEEP, dtype=np.uint16), "png")
    assert np.asarray(Image.open(io.BytesIO(content)).convert("L")).tolist() == [[0, 255, 255]]
    assert decode_image(content, 1)[0, :, 0].tolist() == [0, 17, 255]
    assert decode_image(content, 3)[0].tolist() == [[0] * 3, [17] * 3, [255] * 3]


def test_every_16_bit_level_keeps_its_high_byte():
    levels = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    found = decode_image(encoded(Image.fromarray(levels), "png"), 1)
    np.testing.assert_array_equal(found[..., 0], levels // 256)


def test_the_reader_of_tfds_decodes_with_it():
    assert tfds.decode_image is decode_image


# --- Upright -------------------------------------------------------------------------------------

PORTRAIT = np.arange(6, dtype=np.uint8).reshape(3, 2) * 40
HELD = {
    # What the camera stores of PORTRAIT, by EXIF's number: 0th row and 0th column of what is stored
    # are, in the scene, the sides that CIPA DC-008 (4.6.5) gives for the number.
    1: PORTRAIT,  # top, left
    2: PORTRAIT[:, ::-1],  # top, right
    3: PORTRAIT[::-1, ::-1],  # bottom, right
    4: PORTRAIT[::-1],  # bottom, left
    5: PORTRAIT.T,  # left, top
    6: PORTRAIT.T[::-1],  # right, top
    7: PORTRAIT[::-1, ::-1].T,  # right, bottom
    8: PORTRAIT[::-1].T,  # left, bottom
}


@pytest.mark.parametrize("kind", ["png", "webp", "tiff"])
@pytest.mark.parametrize("held", HELD)
def test_an_image_stands_upright_however_the_camera_was_held(kind, held):
    exif = Image.Exif()
    exif[0x0112] = held
    options = {"lossless": True} if kind == "webp" else {}
    stored = Image.fromarray(np.ascontiguousarray(HELD[held]))
    content = encoded(stored, kind, exif=exif, **options)
    found = decode_image(content, 1)
    np.testing.assert_array_equal(found[..., 0], PORTRAIT)
    assert found.flags.c_contiguous
    peer = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("L")
    np.testing.assert_array_equal(found[..., 0], np.asarray(peer))


def test_photos_stand_upright():
    scene = np.zeros((16, 8, 3), np.uint8)
    scene[:8] = 200  # bright above
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(scene)))
    found = decode_image(encoded(stored, "jpeg", exif=exif), 3)
    assert found.shape == (16, 8, 3)
    assert found[:7].min() > 150 > 50 > found[9:].max()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\0\0\0", b""])
def test_exif_that_says_nothing_leaves_the_image_as_it_is(exif):
    content = encoded(Image.fromarray(PORTRAIT), "jpeg", exif=exif)
    assert decode_image(content, 1).shape == (3, 2, 1)


def test_16_bits_stand_upright_too():
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.ascontiguousarray(HELD[6]).astype(np.uint16) * 257
    found = decode_image(encoded(Image.fromarray(stored), "png", exif=exif), 1)
    np.testing.assert_array_equal(found[..., 0], PORTRAIT)


# --- What is refused -----------------------------------------------------------------------------

SIGNED = struct.pack("<3h", 0, 4369, -5)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (encoded(image_of([0, 0.5, 1], dtype=np.float32), "tiff"), "floats"),
        (tiff(3, 8, 1, struct.pack("<3b", 0, 100, -5), sample_format=2), "signed numbers"),
        (tiff(3, 16, 1, SIGNED, sample_format=2), "numbers from -5 to 4369"),
        (encoded(image_of([0, 2**16], dtype=np.int32), "tiff"), "numbers from 0 to 65536"),
    ],
)
def test_what_means_nothing_in_8_bits_is_refused_with_the_name_of_the_file(content, words):
    for channels in (1, 3, 4):
        with pytest.raises(InputError, match=f"a.tif has {words}, .*convert it to 8") as caught:
            decode_image(content, channels, "a.tif")
        assert "\n" not in str(caught.value)


def test_alpha_that_would_be_a_guess_is_refused_and_colours_are_not():
    """The colours 0x1111 and 0x11ff are one to Pillow, and only one of them is clear."""
    content = png(2, 16, 2, b"\x11\x11" * 3 + b"\x11\xff" * 3, tRNS=b"\x11\x11" * 3)
    assert decode_image(content, 3).tolist() == [[[17] * 3] * 2]
    with pytest.raises(InputError, match="16-bit colours, one of them transparent"):
        decode_image(content, 4)


@pytest.mark.parametrize("channels", [0, 2, 5])
def test_other_numbers_of_channels_are_refused(channels):
    with pytest.raises(InputError, match=rf"channels={channels} .*\. Choose 1, 3 or 4"):
        decode_image(publishers.png(np.eye(2) > 0), channels)


WHOLE = encoded(
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)), "png"
)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "no format that Pillow knows"), (b"hello", "no format"), (WHOLE[:600], "truncated")],
)
def test_what_is_damaged_is_named(content, words):
    with pytest.raises(RunError, match=rf"cat\.png cannot be decoded \(.*{words}.*\)\. Replace it"):
        decode_image(content, 3, "cat.png")


@pytest.mark.parametrize(
    ("values", "expected"), [([0, 0.4, 1], [0, 102, 255]), ([0, 1.4, 255], [0, 1, 255])]
)
def test_floats_are_pixels_where_that_is_asked_for(values, expected):
    content = encoded(image_of(values, dtype=np.float32), "tiff")
    assert decode_image(content, 1, floats=True).ravel().tolist() == expected
    assert decode_image(content, 4, floats=True)[0].tolist() == [[v, v, v, 255] for v in expected]


@pytest.mark.parametrize("value", [-0.5, 255.5, np.nan, np.inf])
def test_floats_beyond_bytes_are_refused(value):
    content = encoded(image_of([0.5, value], dtype=np.float32), "tiff")
    with pytest.raises(InputError, match=r"a\.tif has floats from .*convert it to 8"):
        decode_image(content, 1, "a.tif", floats=True)
