-- Fills two tables, indexes them, joins, groups, sorts and updates.
CREATE TABLE page(id INTEGER PRIMARY KEY, frame INTEGER, kind TEXT, weight REAL);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000)
INSERT INTO page SELECT i, i * 7919 % 10007, substr('ram rom mmiovga ', i % 4 * 4 + 1, 4), i / 7.0 FROM n;
CREATE INDEX by_frame ON page(frame);
CREATE TABLE fault(page INTEGER, code INTEGER, note TEXT);
INSERT INTO fault SELECT frame, id % 32, 'fault ' || printf('%08x', id * 40503) FROM page WHERE id % 3 = 0;
SELECT kind, count(*), sum(weight), min(note), max(note) FROM page JOIN fault ON fault.page = page.frame GROUP BY kind;
UPDATE page SET weight = weight * 2 WHERE frame IN (SELECT page FROM fault WHERE code = 5);
SELECT id, frame, weight FROM page WHERE kind LIKE 'r%' ORDER BY weight DESC, id LIMIT 20;
DELETE FROM page WHERE id % 2;
SELECT count(*), sum(length(note)) FROM fault WHERE note LIKE '%a%' AND page NOT IN (SELECT frame FROM page);
