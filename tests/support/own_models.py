"""An application's own models for users, keys and sessions, in each way to declare them.

In all of them the names of tables and columns differ from the library's, and ids are numbers.
"""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    func,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column, registry
from sqlmodel import Field, SQLModel

from lucia.adapters.sqlalchemy import AuthTables

__all__ = ["STYLES"]


def declarative() -> AuthTables:
    """Classes with columns under other names, and one that a default fills."""

    class Base(DeclarativeBase):
        pass

    class Member(Base):
        __tablename__ = "member"
        member_id: Mapped[int] = mapped_column("pk", primary_key=True)
        email: Mapped[str] = mapped_column("mail", String(254), unique=True)
        visits: Mapped[int] = mapped_column(default=1)

    class MemberKey(Base):
        __tablename__ = "member_key"
        id: Mapped[str] = mapped_column("key_name", String(255), primary_key=True)
        user_id: Mapped[int] = mapped_column("member_pk", ForeignKey("member.pk"))
        hashed_password: Mapped[str | None] = mapped_column("hash", String(255))
        primary_key: Mapped[bool] = mapped_column("is_first")
        expires: Mapped[int | None] = mapped_column("until", BigInteger)
        made_at: Mapped[datetime] = mapped_column(server_default=func.now())

    class MemberSession(Base):
        __tablename__ = "member_session"
        number: Mapped[int] = mapped_column(primary_key=True)
        id: Mapped[str] = mapped_column("token", String(255), unique=True)
        user_id: Mapped[int] = mapped_column("member_pk", ForeignKey("member.pk"), index=True)
        active_expires: Mapped[int] = mapped_column("active", BigInteger)
        idle_expires: Mapped[int] = mapped_column("idle", BigInteger)
        attributes: Mapped[dict[str, Any]] = mapped_column("data", JSON)
        successor: Mapped[str | None] = mapped_column("next_token", String(255))

    return AuthTables(Base.metadata, user=Member, key=MemberKey, session=MemberSession)


def dataclasses() -> AuthTables:
    """Classes that are dataclasses too."""

    class Base(MappedAsDataclass, DeclarativeBase):
        pass

    class Member(Base):
        __tablename__ = "member"
        member_id: Mapped[int] = mapped_column("pk", init=False, primary_key=True)
        email: Mapped[str] = mapped_column("mail", String(254), unique=True)
        visits: Mapped[int] = mapped_column(init=False, insert_default=1)

    class MemberKey(Base):
        __tablename__ = "member_key"
        id: Mapped[str] = mapped_column("key_name", String(255), primary_key=True)
        user_id: Mapped[int] = mapped_column("member_pk", ForeignKey("member.pk"))
        hashed_password: Mapped[str | None] = mapped_column("hash", String(255), default=None)
        primary_key: Mapped[bool] = mapped_column("is_first", default=False)
        expires: Mapped[int | None] = mapped_column("until", BigInteger, default=None)

    return AuthTables(Base.metadata, user=Member, key=MemberKey, sessions=True)


def sqlmodel() -> AuthTables:
    """Classes of SQLModel."""

    class Base(SQLModel):
        metadata = MetaData()

    class Member(Base, table=True):
        __tablename__ = "member"  # pyright: ignore[reportAssignmentType]
        member_id: int | None = Field(
            default=None, primary_key=True, sa_column_kwargs={"name": "pk"}
        )
        email: str = Field(unique=True, max_length=254, sa_column_kwargs={"name": "mail"})
        visits: int = 1

    class MemberKey(Base, table=True):
        __tablename__ = "member_key"  # pyright: ignore[reportAssignmentType]
        id: str = Field(primary_key=True, max_length=255, sa_column_kwargs={"name": "key_name"})
        user_id: int = Field(foreign_key="member.pk", sa_column_kwargs={"name": "member_pk"})
        hashed_password: str | None = Field(default=None, max_length=255)
        primary_key: bool
        expires: int | None = Field(default=None, sa_type=BigInteger)

    return AuthTables(Base.metadata, user=Member, key=MemberKey, sessions=True)


def plain_tables() -> AuthTables:
    """Tables without classes, whose columns go by their keys."""
    metadata = MetaData()
    member = Table(
        "member",
        metadata,
        Column("pk", Integer, primary_key=True),
        Column("mail", String(254), key="email", unique=True),
        Column("visits", Integer, default=1),
    )
    member_key = Table(
        "member_key",
        metadata,
        Column("key_name", String(255), key="id", primary_key=True),
        Column("member_pk", ForeignKey(member.c.pk), key="user_id"),
        Column("hash", String(255), key="hashed_password"),
        Column("is_first", Boolean, key="primary_key"),
        Column("until", BigInteger, key="expires"),
    )
    return AuthTables(metadata, user=member, key=member_key, sessions=True)


def imperative() -> AuthTables:
    """Plain classes that are mapped to tables."""
    mapping = registry()
    member = Table(
        "member",
        mapping.metadata,
        Column("pk", Integer, primary_key=True),
        Column("mail", String(254), unique=True),
        Column("visits", Integer, default=1),
    )
    member_key = Table(
        "member_key",
        mapping.metadata,
        Column("key_name", String(255), primary_key=True),
        Column("member_pk", ForeignKey(member.c.pk)),
        Column("hash", String(255)),
        Column("is_first", Boolean),
        Column("until", BigInteger),
    )

    class Member:
        pass

    class MemberKey:
        pass

    names = {
        "id": member_key.c.key_name,
        "user_id": member_key.c.member_pk,
        "hashed_password": member_key.c.hash,
        "primary_key": member_key.c.is_first,
        "expires": member_key.c.until,
    }
    mapping.map_imperatively(Member, member, properties={"email": member.c.mail})
    mapping.map_imperatively(MemberKey, member_key, properties=names)
    return AuthTables(mapping.metadata, user=Member, key=MemberKey, sessions=True)


STYLES: Final = {
    make.__name__: make() for make in (declarative, dataclasses, sqlmodel, plain_tables, imperative)
}
"""The tables of each way to declare models."""
