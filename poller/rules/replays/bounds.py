"""Owns where a shard ends for a replay: before the first record that arrived after its end, or where nothing more can come.

The first record after the end ends the shard, even if a later one has an earlier time of arrival. So all workers see the same end.
A record without a time of arrival never ends it: it belongs to the range if the dated records before it do. So one that arrived
just after the end may be replayed too, but none of the range is left out.
"""

from dataclasses import dataclass, replace

from poller.domain.records import Epoch, Page

LATE_S = 5.0
"""A record may become visible so long after its time of arrival. The worker's clock may also be a little ahead."""
EMPTY_PAGES = 10
"""So many empty pages in a row show that a shard has no more records, where the source does not say how far behind a page is."""


@dataclass(frozen=True, slots=True)
class BoundedPage:
    """A page as the replay sees it, and how many empty pages in a row there were by then."""

    page: Page
    empty: int = 0


def bounded(page: Page, *, until: Epoch, now: Epoch, empty: int) -> BoundedPage:
    """The page without records that arrived after `until`. It has ended if there was one, or if no more can come.

    `now` is when the page was asked for, and `empty` counts the empty pages in a row before it.
    """
    for place, record in enumerate(page.records):
        if record.dated and record.arrived > until:
            return BoundedPage(_last(page, place))
    if page.records or page.ended or page.cursor is None or page.behind_ms or now < until + LATE_S:
        return BoundedPage(page)
    if page.behind_ms == 0 or empty + 1 >= EMPTY_PAGES:
        return BoundedPage(_last(page, 0))
    return BoundedPage(page, empty + 1)


def _last(page: Page, count: int) -> Page:
    return replace(page, records=page.records[:count], cursor=None, ended=True)
