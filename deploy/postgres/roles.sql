-- Two roles for Millrace: millrace_owner owns the schema and runs `millrace migrate`; millrace_runtime runs `api`, `worker`
-- and the operator's commands, and can change no table.
--
-- Run this as a superuser, or as the owner of the database with CREATEROLE, in Millrace's own database, before the first
-- `millrace migrate`. It can be run again:
--
--   psql -v ON_ERROR_STOP=1 "postgres://postgres@db.example.com/millrace" -f deploy/postgres/roles.sql
--
-- Then give each role a password (\password millrace_owner), and each process its own DATABASE_URL.
-- If another role has migrated this database before, first: REASSIGN OWNED BY that_role TO millrace_owner;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'millrace_owner') THEN
        CREATE ROLE millrace_owner LOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'millrace_runtime') THEN
        CREATE ROLE millrace_runtime LOGIN;
    END IF;
    -- Only a member may change another role's default privileges; a superuser needs no membership.
    IF NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
        GRANT millrace_owner TO CURRENT_USER;
    END IF;
    -- The owner creates the schema apalis and the extensions hstore and pg_trgm, which every PostgreSQL with contrib lets
    -- it. Once they are there, `migrate` needs this right only for a release that says so.
    EXECUTE format('GRANT CONNECT, CREATE ON DATABASE %I TO millrace_owner', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO millrace_runtime', current_database());
END $$;

GRANT USAGE, CREATE ON SCHEMA public TO millrace_owner;
GRANT USAGE ON SCHEMA public TO millrace_runtime;

-- What the owner will create.
ALTER DEFAULT PRIVILEGES FOR ROLE millrace_owner GRANT USAGE ON SCHEMAS TO millrace_runtime;
ALTER DEFAULT PRIVILEGES FOR ROLE millrace_owner GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO millrace_runtime;
ALTER DEFAULT PRIVILEGES FOR ROLE millrace_owner GRANT USAGE ON SEQUENCES TO millrace_runtime;

-- What is there already.
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO millrace_runtime;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO millrace_runtime;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'apalis') THEN
        GRANT USAGE ON SCHEMA apalis TO millrace_runtime;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA apalis TO millrace_runtime;
        GRANT USAGE ON ALL SEQUENCES IN SCHEMA apalis TO millrace_runtime;
    END IF;
END $$;
