"""What the server, its workers and the demo share: the database, the files, and what the weights are called. Imports no torch."""

from __future__ import annotations

from hunyuan_video.config import Place
from hunyuan_video.weights import Weights

try:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, OperationalError

    from hunyuan_video.serving.migrations import upgrade
    from hunyuan_video.serving.results import Results
    from hunyuan_video.serving.store import Store
except ImportError as error:
    raise ImportError(
        f"The server needs {error.name}, which is not installed: pip install 'hunyuan-video[serve]', or '.[serve]' in a clone."
    ) from error


def open_place(place: Place) -> tuple[Store, Results]:
    """The database, with this version's tables, and the files.

    Raises:
        ValueError: the database does not answer, or a newer version of this program has been there.
        ImportError: a driver is not installed.
    """
    if place.database is None:
        place.data.mkdir(parents=True, exist_ok=True)
    try:
        upgrade(place.url)
    except OperationalError as error:
        shown = make_url(place.url).render_as_string(hide_password=True)
        raise ValueError(
            f"The database {shown} does not answer ({' '.join(str(error.orig).split())}); start it, or name another."
        ) from None
    except ArgumentError:
        raise ValueError("--database is no address of a database; give one such as postgresql+psycopg://user@host/videos.") from None
    except ModuleNotFoundError as error:
        raise ImportError(
            f"This kind of database needs {error.name}, which is not installed: pip install 'hunyuan-video[postgres]'."
        ) from error
    return Store(place.url), Results(place.results)


def model_name(found: Weights) -> str:
    """What clients call the weights."""
    return "hunyuan-video-miniature" if found.is_embedded else "hunyuan-video"
