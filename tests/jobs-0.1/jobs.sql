BEGIN TRANSACTION;
CREATE TABLE callbacks (
	job_id CHAR(32) NOT NULL, 
	url VARCHAR NOT NULL, 
	lane VARCHAR NOT NULL, 
	body VARCHAR, 
	ended DOUBLE, 
	attempts INTEGER NOT NULL, 
	due DOUBLE, 
	PRIMARY KEY (job_id)
);
CREATE TABLE jobs (
	owner VARCHAR, 
	request_id VARCHAR NOT NULL, 
	"query" JSON NOT NULL, 
	output_format VARCHAR NOT NULL, 
	tiles INTEGER NOT NULL, 
	deadline DOUBLE, 
	upload_bytes BIGINT NOT NULL, 
	created DOUBLE NOT NULL, 
	id CHAR(32) NOT NULL, 
	state VARCHAR NOT NULL, 
	attempts INTEGER NOT NULL, 
	started DOUBLE, 
	ended DOUBLE, 
	timings JSON NOT NULL, 
	result_bytes BIGINT NOT NULL, 
	media_type VARCHAR, 
	headers JSON NOT NULL, 
	problem JSON, 
	PRIMARY KEY (id)
);
INSERT INTO "jobs" VALUES(NULL,'94e6a999f95040a384067b4ed620fcb9','{"scale": 2.0, "width": null, "height": null, "fit": null, "model": "bicubic", "format": null, "quality": 92, "icc": "keep", "metadata": "keep", "ensemble": false, "proof": false, "fallback": "none"}','png',1,NULL,0,1.79573501749853014944e+09,'85e29ae9076d45f7a9a6efce1af14ccd','done',1,1.79573501755678606025e+09,1.79573501757532167427e+09,'{"decode": 0.002145019003364723, "queue": 9.106599463848397e-05, "infer": 4.4025000534020364e-05, "bicubic": 0.0007718909982941113, "encode": 0.0030055329989409074}',622,'image/png','{"X-Model": "bicubic@e3b0c44298fc", "X-Input-Size": "16x12", "X-Output-Size": "32x24", "Server-Timing": "decode;dur=2.1, queue;dur=0.1, infer;dur=0.0, bicubic;dur=0.8, encode;dur=3.0", "Content-Digest": "sha-256=:EhKu3RdqS6rxn42sO5Ly4zJRzQ1aLI1fr2YmI7CIsFw=:", "Vary": "Accept"}',NULL);
INSERT INTO "jobs" VALUES(NULL,'948bae2722a74edf8032542cf0b10f00','{"scale": 2.0, "width": null, "height": null, "fit": null, "model": "srcnn", "format": null, "quality": 92, "icc": "keep", "metadata": "keep", "ensemble": false, "proof": false, "fallback": "none"}','png',1,NULL,247,1.79573501766690158841e+09,'c55d48b12b44438aaa5d58ff6750fc02','waiting',0,NULL,NULL,'{}',0,NULL,'{}',NULL);
INSERT INTO "jobs" VALUES(NULL,'0fccfe36eaee4af58bc26486c9bcbb30','{"scale": 3.0, "width": null, "height": null, "fit": null, "model": "bicubic", "format": null, "quality": 92, "icc": "keep", "metadata": "keep", "ensemble": false, "proof": false, "fallback": "none"}','png',1,NULL,247,1.7957350176868526935e+09,'5052221fa4ea4abe8d7ac7e0a9f0e17c','waiting',0,NULL,NULL,'{}',0,NULL,'{}',NULL);
CREATE TABLE progress (
	job_id CHAR(32) NOT NULL, 
	stage VARCHAR NOT NULL, 
	tiles_done INTEGER NOT NULL, 
	timings JSON NOT NULL, 
	PRIMARY KEY (job_id), 
	FOREIGN KEY(job_id) REFERENCES jobs (id)
);
CREATE TABLE submissions (
	job_id CHAR(32) NOT NULL, 
	caller VARCHAR NOT NULL, 
	"key" VARCHAR, 
	fingerprint VARCHAR NOT NULL, 
	PRIMARY KEY (job_id), 
	UNIQUE (caller, "key"), 
	FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE
);
INSERT INTO "submissions" VALUES('85e29ae9076d45f7a9a6efce1af14ccd','address 127.0.0.1','first','bce1f76f429717e740cf34043ff18566579b9011b4c2e5c05636d7177c76ff77');
INSERT INTO "submissions" VALUES('c55d48b12b44438aaa5d58ff6750fc02','address 127.0.0.1',NULL,'8773115107cde1813bb708298111d1d215b55907158d58667009a6dafd9264ea');
INSERT INTO "submissions" VALUES('5052221fa4ea4abe8d7ac7e0a9f0e17c','address 127.0.0.1',NULL,'e58814b67b394167e21fcf5061975b7d520f0d0fa882a01b93b0e2c5603a0d09');
CREATE INDEX ix_jobs_state ON jobs (state);
CREATE INDEX ix_jobs_created ON jobs (created);
CREATE INDEX ix_callbacks_due ON callbacks (due);
COMMIT;
