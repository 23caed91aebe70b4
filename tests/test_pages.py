import base64
import io
from html.parser import HTMLParser

from PIL import Image

from keypoint_detection import pages

HOSTILE = "<script>alert('x')</script> & \"耳朵\""


class Reader(HTMLParser):
    """Read a page back: its tags, what is not closed, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text, self.sources = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_text_stays_text_wherever_it_stands():
    rows = [[pages.Cell(HOSTILE), pages.Cell(HOSTILE, HOSTILE)]]
    page = pages.render_page(
        HOSTILE,
        HOSTILE,
        [
            pages.section(HOSTILE, pages.paragraph(HOSTILE), pages.preformatted(HOSTILE)),
            pages.folded(HOSTILE, pages.facts([(HOSTILE, HOSTILE)]), pages.definitions([(HOSTILE, HOSTILE)])),
            pages.table([HOSTILE, HOSTILE], rows, has_total=True, caption=HOSTILE),
            pages.figure(b"x", "image/png", HOSTILE, HOSTILE),
        ],
    )
    reader = Reader(page)
    assert reader.open == []
    assert "script" not in reader.tags
    # Title, heading, subtitle; section: 3; folded: 5; table: 6; caption of the figure.
    assert "".join(reader.text).count(HOSTILE) == 18


def test_half_a_surrogate_pair_does_not_keep_a_page_from_being_written():
    assert "a?b" in pages.render_page("a\ud800b", "", []).encode().decode()


def test_the_last_row_is_the_total_only_where_there_is_one():
    rows = [[pages.Cell("a"), pages.Cell("1")], [pages.Cell("overall"), pages.Cell("2")]]
    assert pages.table(["", "n"], rows, has_total=True, caption="").count('class="total"') == 1
    assert 'class="total"' not in pages.table(["", "n"], rows, has_total=False, caption="")


def test_images_are_in_the_page_and_no_wider_than_needed():
    small = pages.image_as_jpeg(Image.new("RGB", (300, 100), "red"), max_width_px=150)
    (source,) = Reader(pages.figure(small, "image/jpeg", "", "")).sources
    image = Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))))
    assert image.size == (150, 50)
    assert Image.open(io.BytesIO(pages.image_as_jpeg(Image.new("RGB", (30, 10)), 150))).size == (30, 10)
