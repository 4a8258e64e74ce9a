//! Joins the parts of a request, each of which may be invalid: the response lists the errors of all of them.

use super::ValidationError;
use crate::problem::Problem;

/// A tuple of parts of a request: parameters, and the body. They stand in the order in which their errors are listed, that
/// of FastAPI: path, query, headers, body.
pub(crate) trait AllValid {
    /// The values of all parts.
    type Values;

    /// The values, if all of them are valid.
    ///
    /// # Errors
    /// 422 with the errors of all invalid parts. Another problem of a part, such as a body that is not JSON, comes first.
    fn all_valid(self) -> Result<Self::Values, Problem>;
}

/// The error of one part.
pub(crate) trait PartError {
    /// All invalid fields of the part.
    ///
    /// # Errors
    /// The problem, if it is not about fields.
    fn into_invalid(self) -> Result<Vec<ValidationError>, Problem>;
}

impl PartError for ValidationError {
    fn into_invalid(self) -> Result<Vec<ValidationError>, Problem> {
        Ok(vec![self])
    }
}

impl PartError for Problem {
    fn into_invalid(self) -> Result<Vec<ValidationError>, Problem> {
        self.into_validation_errors()
    }
}

macro_rules! all_valid {
    ($($value:ident: $Value:ident, $Error:ident);+) => {
        impl<$($Value, $Error: PartError),+> AllValid for ($(Result<$Value, $Error>,)+) {
            type Values = ($($Value,)+);

            fn all_valid(self) -> Result<Self::Values, Problem> {
                match self {
                    ($(Ok($value),)+) => Ok(($($value,)+)),
                    ($($value,)+) => {
                        let mut errors = Vec::new();
                        $(if let Err(error) = $value {
                            errors.extend(error.into_invalid()?);
                        })+
                        Err(Problem::invalid(errors))
                    }
                }
            }
        }
    };
}

all_valid!(a: A, ErrorA; b: B, ErrorB);
all_valid!(a: A, ErrorA; b: B, ErrorB; c: C, ErrorC);
all_valid!(a: A, ErrorA; b: B, ErrorB; c: C, ErrorC; d: D, ErrorD);
all_valid!(a: A, ErrorA; b: B, ErrorB; c: C, ErrorC; d: D, ErrorD; e: E, ErrorE);
all_valid!(
    a: A, ErrorA; b: B, ErrorB; c: C, ErrorC; d: D, ErrorD; e: E, ErrorE; f: F, ErrorF; g: G, ErrorG; h: H, ErrorH;
    i: I, ErrorI; j: J, ErrorJ
);

#[cfg(test)]
mod tests {
    use poem::{error::ResponseError, http::StatusCode};

    use super::*;
    use crate::validation::FieldError;

    fn wrong(part: &'static str, name: &str) -> ValidationError {
        FieldError::missing().at(part, name, None)
    }

    #[test]
    fn the_errors_of_all_parts_are_listed_in_order() {
        let body = Problem::invalid(vec![wrong("body", "b"), wrong("body", "c")]);
        let parts = (Err::<(), _>(wrong("path", "a")), Ok::<_, ValidationError>(7), Err::<(), _>(body));
        let problem = parts.all_valid().expect_err("two parts are invalid");
        assert_eq!(problem.validation_failures().as_deref(), Some("path a missing, body b missing, body c missing"));
        let valid = (Ok::<_, ValidationError>(1), Ok::<_, Problem>("x")).all_valid();
        assert_eq!(valid.ok(), Some((1, "x")));
    }

    #[test]
    fn a_body_that_cannot_be_read_comes_first() {
        let body = Problem::new(StatusCode::BAD_REQUEST, "Not JSON.");
        let parts = (Err::<(), _>(wrong("path", "a")), Err::<(), _>(body));
        let problem = parts.all_valid().expect_err("both parts are invalid");
        assert_eq!(problem.status(), StatusCode::BAD_REQUEST);
    }
}
