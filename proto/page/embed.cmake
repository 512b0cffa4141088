# SPDX-License-Identifier: Apache-2.0
#
# Writes the text of FILE into the source OUTPUT, as the constant page_files::NAME.
file(READ "${FILE}" text)
file(WRITE "${OUTPUT}" "#include <string_view>\n\nnamespace faultline::page_files {\n\n"
  "extern const std::string_view ${NAME};\n"
  "const std::string_view ${NAME} = R\"page(${text})page\";\n\n"
  "}  // namespace faultline::page_files\n")
