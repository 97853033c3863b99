# Stands in for what `find_package(Slicer)` gives an extension: the macros that our lists call and the folders that they
# name, with the effects that Slicer 5.13 and its CTK give them. Nothing is compiled.

set(Slicer_LIB_DIR "lib/Slicer-5.13")
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR "${Slicer_LIB_DIR}/qt-scripted-modules")
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR "./${Slicer_QTSCRIPTEDMODULES_LIB_DIR}")
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/Nothing.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/Nothing.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/Description.cmake")
set(BUILD_TESTING ON)

function(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MODULE "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MODULE_UNPARSED_ARGUMENTS OR NOT MODULE_NAME)
    message(FATAL_ERROR "Wrong arguments: ${ARGN}")
  endif()
  set(folder ${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR})
  set(copies)
  foreach(file IN LISTS MODULE_SCRIPTS MODULE_RESOURCES)
    set(source ${CMAKE_CURRENT_SOURCE_DIR}/${file})
    if(NOT EXISTS ${source})
      message(FATAL_ERROR "There is no file '${file}'")
    endif()
    add_custom_command(OUTPUT ${folder}/${file} DEPENDS ${source}
      COMMAND ${CMAKE_COMMAND} -E copy ${source} ${folder}/${file})
    list(APPEND copies ${folder}/${file})
  endforeach()
  add_custom_target(Copy${MODULE_NAME} ALL DEPENDS ${copies})
  install(DIRECTORY ${folder}/ DESTINATION ${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR} COMPONENT RuntimeLibraries
    USE_SOURCE_PERMISSIONS)
endfunction()

function(slicer_add_python_unittest)
  cmake_parse_arguments(TEST "" "SCRIPT;TESTNAME_PREFIX" "SLICER_ARGS" ${ARGN})
  if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${TEST_SCRIPT})
    message(FATAL_ERROR "There is no test script '${TEST_SCRIPT}'")
  endif()
  file(APPEND ${CMAKE_BINARY_DIR}/tests.txt "${TEST_SCRIPT}\n")
endfunction()
