"""What a folder's changes are told by: passes that overlap, and doubt in MODSEQs."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

SCHEMA = "mailwright"


def upgrade() -> None:
    op.add_column("folder_epochs", sa.Column("modseq_before", sa.BigInteger(), nullable=True), schema=SCHEMA)
    op.add_column(
        "folder_epochs", sa.Column("doubted_at", sa.DateTime(timezone=True), nullable=True), schema=SCHEMA
    )


def downgrade() -> None:
    op.drop_column("folder_epochs", "doubted_at", schema=SCHEMA)
    op.drop_column("folder_epochs", "modseq_before", schema=SCHEMA)
