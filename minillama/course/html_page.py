"""The frame of the instructor's HTML pages: self-contained, without scripts and links."""

import html

STYLE = "body{font:16px/1.5 Helvetica,Arial,sans-serif;color:#222;margin:2rem auto;padding:0 1rem}pre{overflow-x:auto}"


def html_page(title: str, body: str, style: str, *, heading: str = "", has_images: bool = False) -> str:
    """A page of a body in HTML.

    style: rules besides the common ones. heading: in place of the title. has_images: allow images inside of the page.
    """
    images = "; img-src data:" if has_images else ""
    policy = f"default-src 'none'; style-src 'unsafe-inline'{images}"
    return (
        f"<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'><title>{html.escape(title)}</title>"
        f"<meta http-equiv='Content-Security-Policy' content=\"{policy}\">"
        f"<style>{STYLE}{style}</style></head><body><h1>{html.escape(heading or title)}</h1>{body}</body></html>\n"
    )
