"""The HTML report: its content, that it loads nothing from elsewhere, and its look in a browser."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from difformer_plugin.evaluation import report, table
from difformer_plugin.evaluation.comparison import regression
from difformer_plugin.evaluation.inputs import System, TestSet
from difformer_plugin.evaluation.results import Settings, evaluate

EVIL = "<script>alert(1)</script> & \"quoted\" 'text' {{ 7 * 7 }}"
SETTINGS = Settings(buckets=3, bootstrap_samples=20, skip=["rouge", "comet", "bertscore"])
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
REFERENCES = ["a b c d e", "f g h i j k", "l m n o p", "q r s t u v w", "a c e g i k m o", "x"]
SOURCES = ["eins", "zwei zwei", "drei drei drei", "vier " * 4, "fünf " * 5, EVIL]


def system(name, texts, samples=1, steps=True):
    history = [[f"{text} z&apos;s", "z " + text, text] for text in texts] if steps else None
    return System(name, texts, texts, [[text] * samples for text in texts], history)


@pytest.fixture(scope="module")
def example():
    """A test set, two systems, their result, and the history of the first."""
    test_set = TestSet("de", REFERENCES, REFERENCES, SOURCES, True, [f"a note {EVIL}"])
    texts = [text[:-1] + "y" for text in REFERENCES[:-1]] + [EVIL]
    systems = [
        system(f"$a_b$ {EVIL}", texts, samples=2),
        system("_hidden", ["y", *REFERENCES[1:]], steps=False),
    ]
    history = {
        number: [[(word, 0.05 + 0.3 * k) for word in step.split()] for k, step in enumerate(steps)]
        for number, steps in enumerate(systems[0].steps)
    }
    return test_set, systems, evaluate(test_set, systems, SETTINGS), history


@pytest.fixture(scope="module")
def page(example, tmp_path_factory):
    test_set, systems, result, history = example
    path = tmp_path_factory.mktemp("report") / "report.html"
    report.write_report(path, result, test_set, systems, history)
    return path


class Elements(HTMLParser):
    """Names and attributes of all elements, and the text outside <style> and <script>."""

    def __init__(self, page):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.found and self.found[-1][0] not in ("style", "script"):
            self.text += data

    def named(self, name):
        return [attrs for tag, attrs in self.found if tag == name]


def test_the_page_loads_nothing_from_elsewhere(page):
    elements = Elements(page.read_text("utf-8"))
    assert len(elements.named("svg")) == 5  # by length, by step, confidence, errors, regression
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in elements.named("svg"))
    for _, attrs in elements.found:
        for name in ("src", "href", "xlink:href", "action", "poster", "data"):
            # the parts of an SVG refer to each other
            assert attrs.get(name, "#").startswith("#"), attrs
    text = page.read_text("utf-8")
    outside = re.findall(r"https?://[^\s\"'<)]+", text)
    assert all("w3.org" in url for url in outside)  # XML namespaces
    assert "@import" not in text and not re.search(r"url\((?!#)", text)


def test_user_text_is_escaped(page):
    elements = Elements(page.read_text("utf-8"))
    assert len(elements.named("script")) == 1
    assert EVIL in elements.text and "49" not in elements.text.split("Plots")[0]
    assert f"a note {EVIL}" in elements.text and "$a_b$" in elements.text
    assert (
        elements.text.count("_hidden") > 4
    )  # in legends too, although matplotlib hides such labels


def test_page_and_table_show_the_numbers_of_the_result(page, example):
    _, _, result, _ = example
    text = Elements(page.read_text("utf-8")).text
    for row in result["metrics"]:
        assert row["label"] in text and row["signature"] in text
        assert all(f"{score:.2f}" in text for score in row["scores"])
    for own in result["diversity"]:
        assert own is None or f"{own['self_bleu']:.2f}" in text
    assert f"{result['regression']['slope']:+.5f}" in text
    terminal = table.render(result)
    for row in result["metrics"]:
        assert re.search(
            rf"{re.escape(row['label'])} +{row['scores'][0]:.2f} +{row['scores'][1]:.2f} ", terminal
        )
    assert (
        "several samples per source" in terminal and "BLEU, tok., by step of the system" in terminal
    )
    assert json.loads(json.dumps(result, allow_nan=False))["sentences"] == len(REFERENCES)


def test_page_and_table_say_which_system_wins_and_what_was_scored(example, tmp_path):
    test_set, systems, result, _ = example
    model = "runs/<a>.pt --decoding-steps 20"
    shown = {
        **result,
        "models": [model, ""],
        "made": {"date": "2026-01-02 03:04+00:00", "command": "difformer evaluate 'a b.out'"},
    }
    report.write_report(tmp_path / "a.html", shown, test_set, systems)
    page = (tmp_path / "a.html").read_text("utf-8")
    text = Elements(page).text
    assert all(value in text for value in (model, *shown["made"].values()))
    assert "model of the system" in text and "model of the baseline" not in text
    terminal = table.render(shown)
    assert f"model       {model}" in terminal
    for row in result["metrics"]:
        assert row["better"] in text
        (line,) = [line for line in terminal.splitlines() if line.startswith(row["label"] + " ")][
            :1
        ]
        assert line.endswith(f"  {row['better']}")
    winners = [row["better"] for row in result["metrics"]]
    assert page.count('class="better"') == sum(w in ("system", "baseline") for w in winners)


def test_scoring_runs_inside_the_progress_bar(example):
    test_set, systems, result, _ = example
    during = []

    def progress(tasks):
        during.extend(label for label, _ in tasks)
        return iter(tasks)

    assert evaluate(test_set, systems, SETTINGS, progress) == result
    assert evaluate(test_set, systems, SETTINGS, lambda tasks: [])["diversity"] == []
    labels = [row["label"] for row in result["metrics"]]
    assert during == labels + [f"diversity of {system.name}" for system in systems]


def test_diversity_is_shown_only_for_systems_with_several_samples(example, tmp_path):
    test_set, systems, result, _ = example
    swapped = {**result, "systems": ["one", "several"], "diversity": result["diversity"][::-1]}
    assert swapped["diversity"][0] is None
    report.write_report(tmp_path / "a.html", swapped, test_set, systems)
    text = Elements((tmp_path / "a.html").read_text("utf-8")).text
    table = text.split("BLEU of the best")[1].split("div-4: distinct")[0].strip()
    assert table.startswith(f"several2{result['diversity'][0]['div_4']:.3f}")


@pytest.mark.parametrize(
    "differences, said",
    [
        ([0.1, 0.21, 0.29, 0.4], "the system does relatively better on longer"),
        ([0.4, 0.29, 0.21, 0.1], "the baseline does relatively better on longer"),
        ([0.1, -0.3, 0.4, 0.0], "does not differ significantly from 0"),
        ([0.1, 0.1, 0.1, 0.1], "fits exactly"),
    ],
)
def test_only_a_significant_slope_is_interpreted(differences, said):
    assert said in table.slope_test(regression([2, 3, 4, 5], differences))


def test_shades_follow_the_probability(page):
    spans = [
        (float(attrs["title"]), attrs["class"])
        for attrs in Elements(page.read_text("utf-8")).named("span")
        if "title" in attrs
    ]
    assert {probability for probability, _ in spans} == {0.05, 0.35, 0.65}
    assert {name for _, name in spans} == {"t c0", "t c1", "t c3"}
    assert all(name == f"t c{int(5 * probability)}" for probability, name in spans)


def test_without_steps_or_history_the_page_says_how_to_get_them(example, tmp_path):
    test_set, systems, result, _ = example
    report.write_report(tmp_path / "a.html", result, test_set, systems)
    assert "--history-file FILE" in Elements((tmp_path / "a.html").read_text("utf-8")).text
    bare = TestSet("en", REFERENCES, REFERENCES, None)
    alone = [system("s", REFERENCES, steps=False)]
    found = evaluate(bare, alone, replace(SETTINGS, bootstrap_samples=0))
    report.write_report(tmp_path / "b.html", found, bare, alone)
    text = Elements((tmp_path / "b.html").read_text("utf-8")).text
    assert "--retain-iter-history --retain-z-0-hat" in text and "baseline" not in text
    assert "several samples" not in table.render(found)


def test_without_sentences_the_page_contains_no_corpus_text(example, tmp_path):
    sources, references, outputs = (
        [f"{word}{i}" for i in range(len(REFERENCES))] for word in ("SOURCE", "REF", "OUTPUT")
    )
    test_set = TestSet("en", references, references, sources)
    systems = [system("one", outputs), system("two", outputs)]
    path = tmp_path / "page.html"
    report.write_report(path, example[2], test_set, systems)
    page = path.read_text("utf-8")
    assert all(word in page for word in ("SOURCE", "REF", "OUTPUT", "Examples", "step by step"))
    report.write_report(path, example[2], test_set, systems, sentences=False)
    bare = path.read_text("utf-8")
    assert not any(word in bare for word in ("SOURCE", "REF", "OUTPUT", "Examples", "step by step"))
    assert bare.count("<svg") == page.count("<svg") == 4


def test_a_failed_write_keeps_the_old_page(page, example, tmp_path):
    test_set, systems, result, _ = example
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(KeyError):
        report.write_report(path, {**result, "length_errors": [{}]}, test_set, systems)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


PROBE = """
<script>
const boxes = [...document.querySelectorAll(".stepwise")];
const shown = box => [...box.querySelectorAll("li")].filter(li => li.offsetHeight > 0).length;
const before = boxes.map(shown);
const slider = boxes[0].querySelector("input[type=range]");
slider.value = 1;
slider.oninput();
const first = [...boxes[0].querySelectorAll("li")].find(li => li.offsetHeight > 0);
const text = first.querySelector("span:last-child").innerText;
const all = boxes[0].querySelector("input[type=checkbox]");
all.checked = true;
all.onchange();
const svgs = [...document.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect());
const letters = [...document.querySelectorAll("svg text")].map(t => t.getBoundingClientRect());
const scores = document.querySelector("#scores"), region = scores.parentElement;
const hidden = region.scrollWidth - region.clientWidth;
region.scrollLeft = hidden;
const place = selector => scores.querySelector(selector).getBoundingClientRect();
const scrolled = {
  hidden,
  name: place("td:first-child").left - region.getBoundingClientRect().left,
  winner: region.getBoundingClientRect().right - place("td:last-child").right,
};
const out = document.createElement("pre");
out.id = "probe";
out.textContent = JSON.stringify({
  before, text, scrolled, after: shown(boxes[0]),
  ratios: svgs.map(r => r.width / r.height), widths: svgs.map(r => r.width),
  overflow: document.documentElement.scrollWidth - innerWidth,
  outside: letters.filter(r => r.right > innerWidth || r.left < 0).length,
  letters: letters.length, alerts: window.alerts || 0,
  colour: getComputedStyle(document.querySelector("svg text")).fill,
});
document.body.append(out);
</script></body>
"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on the PATH")
@pytest.mark.parametrize("width", [1200, 375])
def test_a_browser_shows_it(page, width, tmp_path):
    """Plots have a size, nothing overflows, the slider works, and there is no error."""
    inner = page.read_text("utf-8").replace("</body>", PROBE)
    inner = inner.replace("<head>", "<head><script>window.alert = () => { alerts = 1 };</script>")
    (tmp_path / "inner.html").write_text(inner, "utf-8")
    # a window is at least 500 pixels wide, a frame may be as narrow as a phone
    (tmp_path / "outer.html").write_text(
        f'<iframe src="inner.html" width="{width}" height="900"></iframe>'
        "<script>onload = () => document.body.append("
        "frames[0].document.getElementById('probe'))</script>"
    )
    process = subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *("--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}"),
            *("--enable-logging=stderr", "--window-size=1300,1000", "--virtual-time-budget=1000"),
            (tmp_path / "outer.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "CONSOLE" not in process.stderr, process.stderr[-2000:]
    probed = re.search(r'<pre id="probe">(.*?)</pre>', process.stdout)
    assert probed, process.stdout[-500:] + process.stderr[-2000:]
    found = json.loads(probed[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))
    assert set(found["before"]) == {1} and found["after"] == 3
    assert found["text"].endswith("z's")  # the first step, not the last
    assert all(1.2 < ratio < 2 for ratio in found["ratios"])
    assert all(0.4 * min(width, 600) < w <= width for w in found["widths"])
    # scores that do not fit scroll as far as the winner, and the metric's name stays in sight
    assert found["scrolled"]["hidden"] > 50 or width > 1000
    assert abs(found["scrolled"]["name"]) < 1 and found["scrolled"]["winner"] > -1
    assert found["overflow"] <= 0 and found["outside"] == 0 and found["letters"] > 50
    assert found["alerts"] == 0
    assert found["colour"] == "rgb(29, 37, 48)"  # the ink of the page's own style
