"""The SQL of the outbox, per dialect. All times come from the database's own clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from callcast.stores.schema import sqlite

VERSION = 1


class OutboxTexts(Struct, frozen=True):
    """One statement per step; the parameters are those of the step, in its order."""

    tables: Sequence[str]
    exists: str
    add_lane: str
    next_seq: str
    undo_seq: str
    insert: str
    by_id: str
    due_fresh: str
    due_again: str
    lane: str
    take: str
    renew: str
    fence: str
    mark: str
    promote: str
    promote_key: str
    put_off: str
    park: str
    unpark: str
    parked: str
    skip: str
    pending: str
    clean: str
    buses: str


SQLITE = OutboxTexts(
    tables=(
        sqlite("""create table callcast_outbox (
            id integer primary key autoincrement,
            message_id text not null,
            bus text not null,
            lane integer not null,
            topic text not null,
            key text,
            key_seq integer,
            message blob not null,
            is_head integer not null,
            state integer not null default 0,
            attempts integer not null default 0,
            next_attempt_at real not null default 0,
            last_error text,
            created_at real not null default NOW,
            published_at real,
            unique (bus, message_id))"""),
        # Fresh rows have next_attempt_at = 0: the index holds them in the order of their ids.
        """create index callcast_outbox_due on callcast_outbox (bus, lane, next_attempt_at, id)
            where is_head = 1""",
        """create index callcast_outbox_unsent on callcast_outbox (bus, topic, key, id)
            where state <> 1""",
        """create index callcast_outbox_published on callcast_outbox (published_at)
            where state = 1""",
        """create table callcast_outbox_key (
            bus text not null,
            topic text not null,
            key text not null,
            last_seq integer not null,
            primary key (bus, topic, key)) without rowid""",
        """create table callcast_outbox_lane (
            bus text not null,
            lane integer not null,
            owner text not null default '',
            epoch integer not null default 0,
            lease_until real not null default 0,
            primary key (bus, lane)) without rowid""",
    ),
    exists="select 1 from sqlite_schema where name = 'callcast_outbox'",
    add_lane="insert into callcast_outbox_lane (bus, lane) values (?, ?) on conflict do nothing",
    next_seq="""insert into callcast_outbox_key values (?, ?, ?, 1)
        on conflict do update set last_seq = last_seq + 1 returning last_seq""",
    undo_seq="""update callcast_outbox_key set last_seq = last_seq - 1
        where bus = ? and topic = ? and key = ?""",
    insert="""insert into callcast_outbox
        (message_id, bus, lane, topic, key, key_seq, message, is_head)
        values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?5 is null or not exists (
            select 1 from callcast_outbox
            where bus = ?2 and topic = ?4 and key = ?5 and state <> 1))
        on conflict do nothing""",
    by_id="select message from callcast_outbox where bus = ? and message_id = ?",
    due_fresh="""select id, attempts, message from callcast_outbox
        where bus = ? and lane = ? and is_head = 1 and next_attempt_at = 0 order by id limit ?""",
    due_again=sqlite("""select id, attempts, message from callcast_outbox
        where bus = ? and lane = ? and is_head = 1
        and next_attempt_at > 0 and next_attempt_at <= NOW
        order by next_attempt_at, id limit ?"""),
    lane=sqlite("""select epoch, lease_until - NOW, owner from callcast_outbox_lane
        where bus = ? and lane = ?"""),
    take=sqlite("""update callcast_outbox_lane
        set owner = ?, epoch = epoch + 1, lease_until = NOW + ?
        where bus = ? and lane = ? and (lease_until < NOW or owner = ?) returning epoch"""),
    renew=sqlite("""update callcast_outbox_lane set lease_until = NOW + ?
        where bus = ? and lane = ? and epoch = ?"""),
    fence="select 1 from callcast_outbox_lane where bus = ? and lane = ? and epoch = ?",
    mark=sqlite("""update callcast_outbox set state = 1, is_head = 0, published_at = NOW
        where id in (select value from json_each(?)) and state = 0 and exists (
            select 1 from callcast_outbox_lane where bus = ? and lane = ? and epoch = ?)"""),
    promote="""update callcast_outbox set is_head = 1 where state = 0 and id in (
        select (
            select min(n.id) from callcast_outbox n
            where n.bus = o.bus and n.topic = o.topic and n.key = o.key and n.state <> 1)
        from callcast_outbox o
        where o.id in (select value from json_each(?)) and o.key is not null)""",
    promote_key="""update callcast_outbox set is_head = 1 where state = 0 and id = (
        select min(id) from callcast_outbox
        where bus = ? and topic = ? and key = ? and state <> 1)""",
    put_off=sqlite("""update callcast_outbox
        set attempts = attempts + 1, next_attempt_at = NOW + ?, last_error = ?
        where id = ? and state = 0"""),
    park="""update callcast_outbox
        set state = 2, is_head = 0, attempts = attempts + 1, last_error = ?
        where id = ? and state = 0""",
    unpark="""update callcast_outbox set state = 0, is_head = 1, next_attempt_at = 0
        where state = 2 and bus = ?""",
    parked=sqlite("""select o.bus, o.message_id, o.topic, o.key, o.attempts, o.last_error,
        NOW - o.created_at, (select count(*) from callcast_outbox n
            where n.bus = o.bus and n.topic = o.topic and n.key = o.key and n.state = 0),
        o.message
        from callcast_outbox o where o.state = 2 order by o.id"""),
    skip="""delete from callcast_outbox where bus = ? and message_id = ? and state = 2
        returning topic, key""",
    pending=sqlite("""select o.bus,
        sum(o.state = 0 and h.state = 0 and h.next_attempt_at <= NOW),
        sum(o.state = 0 and (h.state = 2 or h.next_attempt_at > NOW)),
        sum(o.state = 2), NOW - min(o.created_at)
        from callcast_outbox o join callcast_outbox h on h.id =
        case when o.is_head or o.state = 2 then o.id else (
            select min(n.id) from callcast_outbox n
            where n.bus = o.bus and n.topic = o.topic and n.key = o.key and n.state <> 1) end
        where o.state <> 1 group by o.bus"""),
    clean=sqlite("""delete from callcast_outbox where id in (
        select id from callcast_outbox where state = 1 and published_at < NOW - ?
        order by published_at limit ?)"""),
    buses="select distinct bus from callcast_outbox_lane order by bus",
)

TEXTS: Mapping[str, OutboxTexts] = {"sqlite": SQLITE}
