-- SPDX-License-Identifier: Apache-2.0
-- Times are milliseconds since 1970-01-01 UTC; 0 is "never".

-- +goose Up
CREATE TABLE tokens (
	id        TEXT PRIMARY KEY,
	name      TEXT NOT NULL,
	products  TEXT NOT NULL, -- separated by commas; empty: all
	hash      BLOB NOT NULL,
	created   INTEGER NOT NULL,
	last_used INTEGER NOT NULL DEFAULT 0,
	revoked   INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX tokens_name ON tokens (name) WHERE revoked = 0;

CREATE TABLE devices (
	product TEXT NOT NULL,
	device  TEXT NOT NULL,
	latest  INTEGER NOT NULL,
	PRIMARY KEY (product, device)
) STRICT, WITHOUT ROWID;

CREATE TABLE reports (
	id               INTEGER PRIMARY KEY AUTOINCREMENT,
	product          TEXT NOT NULL,
	device           TEXT NOT NULL,
	version          TEXT NOT NULL,
	digest           BLOB NOT NULL,
	security_version INTEGER NOT NULL,
	state            TEXT NOT NULL,
	at               INTEGER NOT NULL,
	class            TEXT NOT NULL,
	text             TEXT NOT NULL,
	received         INTEGER NOT NULL,
	FOREIGN KEY (product, device) REFERENCES devices (product, device)
) STRICT;
CREATE INDEX reports_device ON reports (product, device, id);

CREATE TABLE events (
	id      INTEGER PRIMARY KEY AUTOINCREMENT,
	at      INTEGER NOT NULL,
	action  TEXT NOT NULL,
	actor   TEXT NOT NULL,
	product TEXT NOT NULL,
	remote  TEXT NOT NULL,
	outcome TEXT NOT NULL
) STRICT;
CREATE INDEX events_auth ON events (id) WHERE action = 'auth';
