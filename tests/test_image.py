"""Pictures in and out: every format and mode, orientation, the resizer against closed forms, sheets, metadata."""

import gzip
import json

import numpy as np
import PIL.Image
import pytest
import torch

from maquette import catalog
from maquette.errors import MissingExtra, SettingError, UnknownName, Unreadable, UsageError
from maquette.modalities.image import Image
from maquette.piece import Piece
from maquette.space import Batch

CHANCE = np.random.default_rng(0)


def picture(height=12, width=16, channels=3):
    return CHANCE.integers(0, 256, (height, width, channels), np.uint8)


def read(path, **settings):
    return next(Image(**settings).read(path)).content


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".jpg", ".jpeg"])
def test_every_format_is_read_back_as_it_was_written(tmp_path, suffix):
    content = np.repeat(np.repeat(picture(4, 4), 8, 0), 8, 1)
    image = Image()
    path = image.write(Piece(content, {"seed": 3}), tmp_path / f"a{suffix}")
    found = read(path).astype(int)
    assert found.shape == content.shape
    limit = {".webp": 40, ".gif": 8, ".jpg": 60, ".jpeg": 60}.get(suffix, 0)
    assert np.median(abs(found - content)) <= limit and (limit or np.array_equal(found, content))


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("L", 1), ("P", 3), ("RGB", 3), ("RGBA", 4), ("LA", 4), ("CMYK", 3), ("I;16", 1)]
)
def test_every_mode_becomes_grey_rgb_or_rgba(tmp_path, mode, channels):
    deep = PIL.Image.fromarray(np.array([[0, 257 * 100], [257 * 200, 65535]], np.uint16))
    made = deep if mode == "I;16" else PIL.Image.new(mode, (2, 2))
    made.save(tmp_path / "a.tif")
    found = read(tmp_path / "a.tif")
    assert found.shape == (2, 2, channels) and found.dtype == np.uint8
    if mode == "I;16":
        assert found[..., 0].tolist() == [[0, 100], [200, 255]]


def test_a_palette_with_a_transparent_colour_is_rgba(tmp_path):
    made = PIL.Image.new("P", (2, 2))
    made.putpalette([255, 0, 0, 0, 255, 0])
    made.save(tmp_path / "a.png", transparency=0)
    assert read(tmp_path / "a.png")[0, 0].tolist() == [255, 0, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_stands_upright_whatever_its_exif_orientation(tmp_path, orientation):
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :8] = 255  # white in the upper left corner
    turn = {1: 0, 2: 0, 3: 1, 4: 5, 5: 5, 6: 2, 7: 3, 8: 4}
    back = [None, PIL.Image.Transpose.ROTATE_180, PIL.Image.Transpose.ROTATE_90, PIL.Image.Transpose.TRANSVERSE]
    back += [PIL.Image.Transpose.ROTATE_270, PIL.Image.Transpose.FLIP_TOP_BOTTOM]
    method = back[turn[orientation]]
    if orientation == 2:
        method = PIL.Image.Transpose.FLIP_LEFT_RIGHT
    if orientation == 5:
        method = PIL.Image.Transpose.TRANSPOSE
    made = PIL.Image.fromarray(upright)
    made = made.transpose(method) if method is not None else made
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    made.save(tmp_path / "a.png", exif=exif)
    piece = next(Image().read(tmp_path / "a.png"))
    assert np.array_equal(piece.content, upright)
    assert piece.facts["pixels"] == [24, 16]


def fitted(contents, **settings):
    image = Image(**settings)
    image.restore(image.fit(Piece(c) for c in contents))
    return image


def test_channels_are_inferred_from_what_is_seen():
    grey = np.repeat(picture(8, 8, 1), 3, 2)
    opaque = np.concatenate([picture(8, 8), np.full((8, 8, 1), 255, np.uint8)], 2)
    hidden = np.concatenate([picture(8, 8), np.zeros((8, 8, 1), np.uint8)], 2)
    assert fitted([grey]).space.shape == (1, 8, 8)
    assert fitted([grey, picture(8, 8)]).space.shape == (3, 8, 8)
    assert fitted([opaque]).space.shape == (3, 8, 8)
    assert fitted([opaque, hidden]).space.shape == (4, 8, 8)
    assert fitted([opaque, hidden], steps=("background", "resize")).space.shape == (3, 8, 8)
    assert fitted([opaque], channels=1).space.shape == (1, 8, 8)


def test_the_size_is_the_usual_one_where_it_is_small_and_else_a_square():
    assert fitted([np.zeros((28, 28, 1), np.uint8)]).space.shape == (1, 28, 28)
    assert fitted([np.zeros((47, 31, 1), np.uint8)]).space.shape == (1, 48, 32)
    assert fitted([np.zeros((300, 400, 1), np.uint8)]).space.shape == (1, 64, 64)
    assert fitted([np.zeros((300, 400, 1), np.uint8)], largest=32).space.shape == (1, 32, 32)
    assert fitted([np.zeros((300, 400, 1), np.uint8)], size=128).space.shape == (1, 128, 128)


def cleaned(content, **settings):
    image = fitted([content], **settings)
    return image.clean(Piece(content)).content


def test_shrinking_averages_and_does_not_alias():
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[:, ::2] = 255  # one pixel wide: nearest neighbour would give all black or all white
    assert abs(cleaned(stripes, size=16).astype(int)[:, 2:-2] - 127.5).max() <= 3


def test_a_straight_ramp_stays_a_straight_ramp_when_it_shrinks():
    ramp = np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (64, 1, 1))
    expected = np.arange(16) * 16 + 6  # the mean of each four neighbours
    assert abs(cleaned(ramp, size=16)[8, 2:-2, 0].astype(int) - expected[2:-2]).max() <= 1


def test_a_hidden_colour_does_not_bleed_into_visible_ones():
    content = np.zeros((8, 8, 4), np.uint8)
    content[:, :4] = (255, 0, 0, 255)
    content[:, 4:] = (0, 255, 0, 0)  # invisible green
    small = cleaned(content, size=4)
    assert (
        small[..., 1].max() == 0 and small[0, 0].tolist() == [255, 0, 0, 255] and small[0, 3].tolist() == [0, 0, 0, 0]
    )


def test_crop_keeps_the_middle_and_pad_keeps_everything():
    content = np.zeros((8, 16, 3), np.uint8)
    content[:, 4:12] = 200
    assert (cleaned(content, size=8, steps=("crop", "resize")) == 200).all()
    padded = cleaned(
        np.full((8, 16, 3), 90, np.uint8), size=16, steps=("pad", "resize"), background="white", channels=3
    )
    assert (padded[4:12] == 90).all() and (padded[:4] == 255).all() and (padded[12:] == 255).all()
    assert (
        cleaned(np.full((8, 16, 1), 90, np.uint8), size=16, steps=("pad", "resize")) == 90
    ).all()  # the border's colour


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_photograph_shrinks_while_it_is_read_to_no_less_than_is_needed(tmp_path, suffix):
    ramp = np.tile(np.linspace(0, 255, 600).astype(np.uint8)[None, :, None], (400, 1, 3))
    Image().write(Piece(ramp), tmp_path / f"a{suffix}")
    image = Image(size=16)
    piece = next(image.read(tmp_path / f"a{suffix}"))
    height, width = piece.content.shape[:2]
    assert 48 <= height <= 100 and abs(width / height - 1.5) < 0.05 and piece.facts["pixels"] == [600, 400]
    image.restore(image.fit([piece]))
    exact = fitted([ramp], size=16).clean(Piece(ramp)).content.mean(2)
    assert abs(image.clean(piece).content.mean(2) - exact).max() <= 4
    assert image.fitted["sizes"] == {"600x400": 1}


def test_shrinking_while_reading_leaves_a_hidden_colour_hidden(tmp_path):
    content = np.zeros((300, 300, 4), np.uint8)
    content[:, :150] = (255, 0, 0, 255)
    content[:, 150:] = (0, 255, 0, 0)
    PIL.Image.fromarray(content).save(tmp_path / "a.png")
    found = read(tmp_path / "a.png", size=16)
    assert found.shape == (50, 50, 4) and found[..., 1].max() == 0 and found[0, 0].tolist() == [255, 0, 0, 255]


def test_of_an_animation_the_first_frame_is_taken_and_that_is_said(tmp_path):
    frames = [PIL.Image.fromarray(picture(8, 8)) for _ in range(3)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "still.png")
    image = Image()
    moving, still = (next(image.read(tmp_path / name)) for name in ("a.png", "still.png"))
    assert np.array_equal(moving.content, still.content) and "animated" not in still.facts
    image.restore(image.fit([moving, still]))
    assert "1 of the files are animated or have pages; the first of each was taken" in image.advice()


def test_deep_colour_keeps_its_upper_eight_bits(tmp_path):
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + struct.pack(">6H", 0xFF00, 0x8000, 0x0000, 0x1234, 0x5678, 0x9ABC)  # two pixels of 16-bit RGB
    head = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(row * 2)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    assert read(tmp_path / "a.png")[0].tolist() == [[255, 128, 0], [0x12, 0x56, 0x9A]]


def test_a_long_thin_picture_is_padded_without_filling_the_memory():
    found = cleaned(np.full((2, 500_000, 1), 90, np.uint8), size=16, steps=("pad", "resize"), background="black")
    assert found.shape == (16, 16, 1) and found.max() == 90 and found[0].max() == 0


def test_transparency_lies_over_the_background_that_was_asked_for():
    content = np.zeros((4, 4, 4), np.uint8)
    content[0, 0] = (10, 20, 30, 255)
    found = cleaned(content, steps=("background", "resize"), background="#0000ff")
    assert found[0, 0].tolist() == [10, 20, 30] and found[1, 1].tolist() == [0, 0, 255]


def test_normalise_stretches_each_picture_to_the_whole_range():
    content = np.linspace(100, 150, 64).astype(np.uint8).reshape(8, 8, 1)
    found = cleaned(content, steps=("normalise",))
    assert found.min() == 0 and found.max() == 255


@pytest.mark.parametrize("step", ["median", "nlmeans", "wavelet"])
def test_denoising_brings_a_noisy_picture_nearer_to_the_clean_one(step):
    for needed in ("skimage", "pywt"):
        pytest.importorskip(needed, reason="the extra denoise is not installed")
    clean = np.zeros((32, 32, 1), np.uint8) + 60
    clean[8:24, 8:24] = 190
    noisy = np.clip(clean + np.random.default_rng(0).normal(0, 20, clean.shape), 0, 255).astype(np.uint8)
    found = cleaned(noisy, steps=(step,))
    before, after = (np.square(x.astype(float) - clean).mean() for x in (noisy, found))
    assert after < 0.5 * before


def test_denoising_without_its_extra_names_the_command(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "skimage.filters", None)
    with pytest.raises(MissingExtra, match=r"pip install 'maquette\[denoise\]'"):
        cleaned(picture(8, 8), steps=("median",))


def test_a_size_that_no_step_brings_about_is_refused_in_words():
    image = fitted([np.zeros((8, 8, 1), np.uint8)], steps=())
    with pytest.raises(Unreadable, match="9x9 after cleaning, the corpus is 8x8; add resize to steps"):
        image.clean(Piece(np.zeros((9, 9, 1), np.uint8)))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_tensor_and_back_is_the_same_piece(channels):
    content = picture(8, 8, channels)
    if channels == 4:
        content[..., 3] |= 1  # invisible colours are not kept
    image = fitted([content], channels=channels)
    piece = image.clean(Piece(content))
    x = image.to_tensor(piece)
    assert x.shape == image.space.shape and x.min() >= -1 and x.max() <= 1
    assert np.array_equal(image.to_piece(x).content, piece.content)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_a_written_picture_carries_its_facts(tmp_path, suffix):
    facts = {"run": "runs/öl", "seed": 7, "condition": {"label": "dragon 龍"}}
    path = Image().write(Piece(picture(), facts), tmp_path / f"a{suffix}")
    assert Image.read_facts(path) == facts


def test_a_foreign_picture_has_no_facts(tmp_path):
    PIL.Image.new("RGB", (4, 4)).save(tmp_path / "a.png", description="hello")
    assert Image.read_facts(tmp_path / "a.png") == {}
    (tmp_path / "b.png").write_text("no picture")
    with pytest.raises(Unreadable, match="no PNG, JPEG"):
        Image.read_facts(tmp_path / "b.png")


def test_writing_to_a_format_that_is_none_says_which_there_are(tmp_path):
    with pytest.raises(UsageError, match=r"\.png \.jpg .* a\.txt came"):
        Image().write(Piece(picture()), tmp_path / "a.txt")


def test_a_sheet_shows_small_pictures_large_and_transparency_as_a_checkerboard(tmp_path):
    pieces = [Piece(picture(8, 8, 4) * np.uint8([1, 1, 1, 0])) for _ in range(6)]
    path = Image().sheet(pieces, tmp_path / "sheet.png", columns=3, captions=list("abcdef"))
    with PIL.Image.open(path) as sheet:
        assert sheet.size == (3 * 100 + 4, 2 * 114 + 4)
        assert set(np.unique(np.asarray(sheet)[4:100, 4:100])) == {216, 255}
    with pytest.raises(UsageError):
        Image().sheet([], tmp_path / "none.png")


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_an_animation_has_all_its_frames(tmp_path, suffix):
    frames = [Piece(np.full((8, 8, 1), level, np.uint8)) for level in (0, 60, 120, 250)]
    path = Image().animate(frames, tmp_path / f"a{suffix}")
    with PIL.Image.open(path) as animation:
        assert animation.n_frames == 4


def test_augmentation_shifts_and_flips_only_where_asked():
    x = torch.zeros(64, 1, 16, 16)
    x[:, :, 8, 4] = 1
    few, many = fitted([np.zeros((16, 16, 1), np.uint8)]), fitted([np.zeros((16, 16, 1), np.uint8)])
    few.restore({**few.fitted, "pieces": 100})
    many.restore({**many.fitted, "pieces": 5_000})
    torch.manual_seed(0)
    assert torch.equal(many.augment(Batch(x)).x, x)
    columns = few.augment(Batch(x)).x.nonzero()[:, 3].unique().tolist()
    assert columns == [3, 4, 5]
    assert Image(augment="flip+shift").augment(Batch(x)).x.nonzero()[:, 3].unique().tolist() == [3, 4, 5, 10, 11, 12]
    assert torch.equal(Image(augment="off").augment(Batch(x)).x, x)


def test_a_modality_is_restored_from_the_facts_of_a_corpus():
    image = fitted([picture(8, 8)], augment="off")
    facts = {"name": "image", "settings": catalog.check(Image, {"augment": "off"}, "image"), "fitted": image.fitted}
    again = catalog.modality(json.loads(json.dumps(facts)))
    assert again.space == image.space and again.settings["augment"] == "off"


def test_a_mistyped_setting_names_the_nearest_one():
    with pytest.raises(UnknownName, match="did you mean size"):
        catalog.check(Image, {"sise": 3}, "image")
    with pytest.raises(SettingError, match=r"image\.steps"):
        catalog.check(Image, {"steps": ["sharpen"]}, "image")
    with pytest.raises(SettingError, match="background should be auto or a colour"):
        Image(background="greeen")


# ---- arrays


def idx(path, pictures, labels=None):
    head = b"\0\0\x08" + bytes([pictures.ndim]) + np.array(pictures.shape, ">u4").tobytes()
    opened = gzip.open if path.name.endswith(".gz") else open
    with opened(path, "wb") as stream:
        stream.write(head + pictures.tobytes())
    if labels is not None:
        beside = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
        with opened(beside, "wb") as stream:
            stream.write(b"\0\0\x08\x01" + np.array([len(labels)], ">u4").tobytes() + bytes(labels))
    return path


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_idx_file_is_read_with_the_labels_beside_it(tmp_path, suffix):
    pictures = CHANCE.integers(0, 256, (5, 6, 7), np.uint8)
    path = idx(tmp_path / f"train-images-idx3-ubyte{suffix}", pictures, [3, 1, 4, 1, 5])
    found = list(Image().read(path))
    assert np.array_equal(np.stack([p.content[..., 0] for p in found]), pictures)
    assert [p.facts["label"] for p in found] == ["3", "1", "4", "1", "5"]


def test_an_idx_file_that_ends_early_gives_what_came_before(tmp_path):
    path = idx(tmp_path / "a-idx3-ubyte", np.zeros((5, 6, 7), np.uint8))
    path.write_bytes(path.read_bytes()[:-10])
    found = []
    with pytest.raises(Unreadable, match="5 pictures were announced, 4 are there"):
        for piece in Image().read(path):
            found.append(piece)
    assert len(found) == 4


@pytest.mark.parametrize("layout", ["NHW", "NHWC", "NCHW"])
def test_an_npz_file_is_read_in_each_layout(tmp_path, layout):
    pictures = CHANCE.integers(0, 256, (5, 6, 7, 3), np.uint8)
    stored = {"NHW": pictures[..., 0], "NHWC": pictures, "NCHW": pictures.transpose(0, 3, 1, 2)}[layout]
    np.savez_compressed(
        tmp_path / "a.npz", images=np.ascontiguousarray(stored), labels=np.array(["a", "b", "a", "b", "c"])
    )
    found = list(Image().read(tmp_path / "a.npz"))
    expected = pictures[..., :1] if layout == "NHW" else pictures
    assert np.array_equal(np.stack([p.content for p in found]), expected)
    assert [p.facts["label"] for p in found] == ["a", "b", "a", "b", "c"]


def test_floats_from_0_to_1_and_16_bits_become_levels(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=np.array([[[0.0, 0.5], [1.0, 0.25]]] * 2, np.float32), y_train=[0, 1])
    np.savez(tmp_path / "b.npz", x=np.array([[[0, 65535], [257, 514]]], np.uint16))
    assert next(Image().read(tmp_path / "a.npz")).content[..., 0].tolist() == [[0, 128], [255, 64]]
    assert next(Image().read(tmp_path / "b.npz")).content[..., 0].tolist() == [[0, 255], [1, 2]]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": np.zeros((2, 4, 4)), "b": np.zeros(3)}, "array named images or x; it has a, b"),
        ({"x": np.array([{}, {}], object)}, "without Python objects"),
        ({"x": np.full((2, 4, 4), 7.0)}, "float from 0 to 1; float64 from 7 to 7 came"),
        ({"x": np.zeros((2, 5, 4, 7), np.uint8)}, "C = 1, 3, 4"),
        ({"x": np.zeros((2, 4, 4), np.uint8), "y": np.zeros(3, int)}, "one whole number or word a picture"),
        ({"x": np.zeros((2, 4, 0), np.uint8)}, "pixels; more than none"),
    ],
)
def test_an_odd_npz_is_refused_in_words(tmp_path, arrays, words):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(Unreadable, match=words):
        list(Image().read(tmp_path / "a.npz"))
