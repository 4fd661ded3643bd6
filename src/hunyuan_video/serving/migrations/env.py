"""What Alembic runs: the migrations inside the transaction that `upgrade` has begun."""

from alembic import context

from hunyuan_video.serving.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
