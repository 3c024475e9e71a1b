"""Write the JSON Schema of the record, `harness/record.schema.json`, from the code that defines it."""

from harness.records import SCHEMA_FILE, json_schema

if __name__ == "__main__":
    SCHEMA_FILE.write_text(json_schema())
