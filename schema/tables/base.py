"""The declarative base, the column types that recur, and how constraints are named."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, DateTime, Identity, MetaData, Text, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

SCHEMA = "mailwright"

METADATA = MetaData(
    schema=SCHEMA,
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    },
)


class Base(DeclarativeBase):
    metadata = METADATA
    type_annotation_map = {
        str: Text,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[str]: ARRAY(Text),
        int: BigInteger,
    }


Key = Annotated[int, mapped_column(BigInteger, Identity(), primary_key=True)]
Uid = Annotated[UUID, mapped_column(Uuid, unique=True, server_default=text("mailwright.uuid7()"))]
Moment = Annotated[datetime, mapped_column(DateTime(timezone=True), server_default=text("now()"))]


def one_of(column: str, values: type[StrEnum]) -> CheckConstraint:
    """A check that ``column`` holds one of an enum's values."""
    names = ", ".join(f"'{value.value}'" for value in values)
    return CheckConstraint(f"{column} IN ({names})", name=column)
