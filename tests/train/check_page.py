"""check_page.py PAGE.html: whether a report page is well-formed and self-contained.

Every element is closed in order, every table row has as many cells as its head, ids are unique, figures parse
as XML, nothing is fetched and nothing runs. Prints the page's visible text; exits 1 with a reason otherwise.
"""
import html.parser
import re
import sys
import xml.etree.ElementTree

VOID = {"meta", "br", "hr", "img", "input", "link"}
ALLOWED = set("""html head meta title style body main h1 h2 h3 p ul li small div table caption thead tbody tr th td br
figure figcaption span details summary pre code svg g path circle rect text polygon mark""".split())


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.ids, self.text, self.rows, self.viewport = [], set(), [], None, False

    def handle_starttag(self, tag, attributes):
        self.check(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.rows = []
        if tag == "tr":
            self.rows.append(0)
        if tag in ("th", "td"):
            self.rows[-1] += 1

    def handle_startendtag(self, tag, attributes):
        self.check(tag, attributes)

    def check(self, tag, attributes):
        if tag not in ALLOWED:
            sys.exit(f"line {self.getpos()[0]}: unexpected element {tag}")
        for name, value in attributes:
            if name.startswith("on") or name in ("src", "href", "xlink:href", "action"):
                sys.exit(f"line {self.getpos()[0]}: {tag} has {name}={value}")
            if name == "id" and value in self.ids:
                sys.exit(f"id {value} is there twice")
            if name == "id":
                self.ids.add(value)
            if name == "name" and value == "viewport":
                self.viewport = True

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            sys.exit(f"line {self.getpos()[0]}: </{tag}> closes nothing")
        if tag == "table" and (len(self.rows) < 2 or len(set(self.rows)) != 1):
            sys.exit(f"line {self.getpos()[0]}: a table's rows have {self.rows} cells")

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


with open(sys.argv[1], encoding="utf-8", errors="strict", newline="") as file:
    source = file.read()
page = Page()
page.feed(source)
page.close()
if page.open:
    sys.exit(f"never closed: {page.open}")
if not source.startswith("<!DOCTYPE html>") or not page.viewport:
    sys.exit("no doctype or no viewport")
if re.search(r"url\(|@import|://(?!www\.w3\.org/2000/svg)", re.sub(r"<pre>.*?</pre>|<td>.*?</td>", "", source, flags=re.S)):
    sys.exit("the page names something outside")
for figure in re.findall(r"<svg.*?</svg>", source, flags=re.S):
    xml.etree.ElementTree.fromstring(figure)
print(" ".join("".join(page.text).split()))
