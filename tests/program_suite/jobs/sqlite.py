"""A database that a generated workload fills, changes and asks: what each step answers, and the file's own check."""

import hashlib
import os
import random
import sqlite3
import subprocess

random.seed(7)
print("library", sqlite3.sqlite_version)


def digest(rows):
    return hashlib.sha256(repr(list(rows)).encode()).hexdigest()[:16]


def word():
    return "".join(random.choice("abcdefghijklmnopqrstuvwxyzäöü") for _ in range(random.randrange(1, 12)))


QUESTIONS = (
    "select count(*), sum(amount), avg(price), min(name), max(name) from orders",
    "select name, count(*) c from orders group by name order by c desc, name limit 20",
    "select p.id, p.name, sum(o.amount * o.price) from people p join orders o on o.person = p.id group by p.id order by 3, 1 limit 50",
    "select id, rank() over (partition by person order by price desc, id) r from orders where id % 17 = 0 order by id limit 200",
    "with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000) select sum(i * i % 97), group_concat(i % 10, '') from n",
    "select upper(name), substr(name, 2, 3), length(name), instr(name, 'a'), replace(name, 'e', 'E') from people order by id limit 100",
    "select person from orders except select id from people where id % 3 = 0 order by 1 limit 100",
    "select printf('%.10f %e %g', price, price * 1e10, price / 3), round(price, 2), cast(price * 100 as integer) from orders where id < 200",
    "select name from people where name like '%ab%' or name glob '[x-z]*' order by name, id",
    "select json_group_array(json_object('id', id, 'name', name)) from people where id < 40",
    "select sum(a.price * b.price) from orders a join orders b on b.id = a.id + 1 where a.id < 3000",
    "select length(randomblob(9)), quote(zeroblob(3)), abs(-5), coalesce(null, 3), typeof(1.5), unicode('ß')",
    "select count(*) from search where search match 'be* OR ca*'",
    "select id from box where x0 < 500 and x1 > 400 and y0 < 300 and y1 > 200 order by id",
)

for mode in ("delete", "wal", "memory")[: 1 if os.environ.get("SLICE") else 3]:
    connection = sqlite3.connect(":memory:" if mode == "memory" else f"{mode}.db", isolation_level=None)
    run = connection.execute
    print(mode, run(f"pragma journal_mode={mode}").fetchone())
    run("create table people (id integer primary key, name text, born real)")
    run("create table orders (id integer primary key, person int references people, name text, amount int, price real)")
    run("create index by_person on orders (person, price)")
    run("create virtual table search using fts5(text)")
    run("create virtual table box using rtree(id, x0, x1, y0, y1)")
    run("create trigger t after delete on people begin delete from orders where person = old.id; end")
    run("begin")
    for i in range(3000):
        run("insert into people (name, born) values (?, ?)", (word(), random.uniform(-1e6, 1e6)))
        for _ in range(random.randrange(6)):
            run("insert into orders (person, name, amount, price) values (?, ?, ?, ?)", (i, word(), random.randrange(100), random.random() * 100))
        run("insert into search values (?)", (" ".join(word() for _ in range(5)),))
        x, y = random.randrange(1000), random.randrange(1000)
        run("insert into box values (?, ?, ?, ?, ?)", (i, x, x + 9, y, y + 9))
    run("commit")
    for step in range(40):
        run("begin immediate")
        for _ in range(50):
            choice = random.randrange(4)
            if choice == 0:
                run("update orders set price = price * 1.01, amount = amount + 1 where person = ?", (random.randrange(3000),))
            elif choice == 1:
                run("delete from people where id = ?", (random.randrange(3000),))
            elif choice == 2:
                run("insert into orders (person, name, amount, price) values (?, ?, 1, ?)", (random.randrange(3000), word(), random.random()))
            else:
                run("update people set name = ? where id = ?", (word() * 50, random.randrange(3000)))
        run("rollback" if step % 3 == 0 else "commit")
    for question in QUESTIONS:
        print(mode, digest(run(question)), question[:60])
    run("vacuum")
    run("reindex")
    print(mode, "check", run("pragma integrity_check").fetchall())
    print(mode, "dump", digest(connection.iterdump()))
    connection.close()
print(subprocess.run(["sqlite3", "delete.db", ".schema", "select count(*) from orders;", "pragma quick_check;"], capture_output=True, text=True).stdout)
