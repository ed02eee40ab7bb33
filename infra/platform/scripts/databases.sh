# One role and one database of the same name for each of $DATABASES; runs any number of times.
set -eu
for name in $DATABASES; do
    export name
    psql --quiet --set ON_ERROR_STOP=1 <<'SQL'
\set name `printenv name`
\set password `cat "/run/secrets/$name"`
SELECT format('CREATE ROLE %I', :'name')
    WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'name') \gexec
ALTER ROLE :"name" LOGIN PASSWORD :'password';
-- Who is no superuser, as nobody on RDS is, gives a database only to a role whose member it is.
SELECT format('GRANT %I TO CURRENT_USER', :'name')
    WHERE NOT pg_has_role(CURRENT_USER, :'name', 'MEMBER') \gexec
SELECT format('CREATE DATABASE %I OWNER %I', :'name', :'name')
    WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
    echo "database $name is there"
done
