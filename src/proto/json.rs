//! Messages in their JSON and YAML forms.
